//! What each type says about itself.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{ALL, MemType};

/// A type's table as a line of text.
fn line(ty: &MemType) -> String {
    let objects = match (ty.fixed_size, ty.guest_only) {
        (false, _) => "",
        (true, false) => " fixed",
        (true, true) => " fixed, guest's",
    };
    let what = format!("{}: {:?}{objects}", ty.name, ty.privately);
    let Some(ops) = &ty.uffd else {
        return what + "; none";
    };
    format!(
        "{what}; {:?} {:?} {:?}{}{}",
        ops.granule,
        ops.modes.iter_names().map(|(name, _)| name).collect::<Vec<_>>(),
        ops.ops.iter_names().map(|(name, _)| name).collect::<Vec<_>>(),
        if ops.cache.is_some() { " cache" } else { "" },
        if ops.filled_by_write { " write()" } else { "" },
    )
    .replace('"', "")
}

#[test]
fn the_tables_of_all_types() {
    let tables: Vec<String> = ALL.iter().map(|ty| line(ty)).collect();
    assert_eq!(
        tables,
        [
            "anonymous: Itself; Base [MISSING, WP] [COPY, ZEROPAGE, WRITEPROTECT, POISON, MOVE]",
            "droppable: Itself; none",
            "shared: Caches; Base [MISSING, WP, MINOR] \
             [COPY, ZEROPAGE, CONTINUE, WRITEPROTECT, POISON] cache write()",
            "secret: Never; none",
            "System V: Caches fixed; none",
            "special: Caches; none",
            "huge: Itself; Huge [MISSING, WP, MINOR] [COPY, CONTINUE, WRITEPROTECT, POISON] cache",
            "zero: Itself; Base [MISSING, WP] [COPY, ZEROPAGE, WRITEPROTECT, POISON, MOVE]",
            "guest: Never fixed; Base [MISSING, MINOR] [COPY, CONTINUE, POISON] cache write()",
            "guest, written: Never fixed; Base [MISSING, MINOR] [CONTINUE, POISON] cache write()",
            "guest, private: Never fixed, guest's; none",
        ]
    );
}

#[test]
fn every_table_is_checked() {
    for ty in ALL {
        assert_eq!(ty.uffd.map(|ops| ops.checked().ops), ty.uffd.map(|ops| ops.ops));
    }
}
