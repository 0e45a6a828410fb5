use super::*;
use crate::arch::host::{Config, Running, SoftMachine};
use crate::file::dev::MemoryFile;
use crate::file::{OpenFlags, Table};

const FILE: Key = Key { device: 1, ino: 2 };
const OTHER: Key = Key { device: 1, ino: 3 };

fn machine() -> Running {
    SoftMachine::start(Config { memory: 16 << 20 })
}

fn empty() -> Registry {
    Registry {
        files: Vec::new(),
        count: 0,
        line: Vec::new(),
    }
}

fn wanted(owner: Owner, kind: Kind, first: u64, last: u64) -> Lock {
    Lock {
        owner,
        description: 0,
        pid: 1,
        kind,
        range: Range { first, last },
    }
}

fn write(owner: usize, at: u64) -> Lock {
    wanted(Owner::Table(owner), Kind::Write, at, at)
}

impl Registry {
    fn has(&mut self, key: Key, lock: Lock) {
        assert_eq!(self.attempt(key, Sort::Record, &lock), Ok(Outcome::Given));
    }

    fn waits(&mut self, key: Key, lock: Lock) -> Result<Arc<Waiter>, Errno> {
        let obstacle = self
            .attempt(key, Sort::Record, &lock)
            .expect_err("somebody is in its way");
        self.stand(key, Sort::Record, lock, &obstacle)
    }
}

#[test]
fn who_came_first_is_served_first_and_those_beside_him_too() {
    let _machine = machine();
    let mut locks = empty();
    locks.has(FILE, wanted(Owner::Table(1), Kind::Write, 0, 99));
    locks.has(OTHER, write(1, 0));
    let first = locks.waits(FILE, write(2, 5)).unwrap();
    let second = locks.waits(FILE, write(3, 5)).unwrap();
    let elsewhere = locks.waits(OTHER, write(4, 0)).unwrap();
    let beside = locks.waits(FILE, write(5, 6)).unwrap();
    locks.forget(FILE, Owner::Table(1));
    assert_eq!(first.outcome(), Some(Outcome::Given));
    assert_eq!(second.outcome(), None);
    assert_eq!(elsewhere.outcome(), None, "another file's");
    assert_eq!(beside.outcome(), Some(Outcome::Given));
    locks.forget(FILE, Owner::Table(2));
    assert_eq!(second.outcome(), Some(Outcome::Given));
    for owner in [3, 5] {
        locks.forget(FILE, Owner::Table(owner));
    }
    locks.forget(OTHER, Owner::Table(1));
    locks.forget(OTHER, Owner::Table(4));
    assert_eq!((locks.files.len(), locks.count, locks.line.len()), (0, 0, 0));
}

#[test]
fn a_lock_that_is_given_can_make_room_for_one_before_it() {
    let _machine = machine();
    let mut locks = empty();
    locks.has(FILE, write(1, 9));
    locks.has(FILE, wanted(Owner::Table(3), Kind::Write, 0, 4));
    let reader = locks
        .waits(FILE, wanted(Owner::Table(2), Kind::Read, 0, 0))
        .unwrap();
    // It has to wait for the last byte, and reads then what it writes to now.
    let other = locks
        .waits(FILE, wanted(Owner::Table(3), Kind::Read, 0, 9))
        .unwrap();
    locks.forget(FILE, Owner::Table(1));
    assert_eq!(other.outcome(), Some(Outcome::Given));
    assert_eq!(reader.outcome(), Some(Outcome::Given));
    assert!(locks.line.is_empty());
}

#[test]
fn a_circle_is_refused_to_who_would_close_it() {
    let _machine = machine();
    let mut locks = empty();
    (1..=3).for_each(|owner| locks.has(FILE, write(owner, owner as u64)));
    let first = locks.waits(FILE, write(1, 2)).unwrap();
    locks.waits(FILE, write(2, 3)).unwrap();
    assert_eq!(locks.waits(FILE, write(3, 1)).err(), Some(Errno::EDEADLK));
    assert_eq!(locks.line.len(), 2);
    // An open file description waits for nobody.
    let description = wanted(Owner::Description(9), Kind::Write, 1, 1);
    assert!(locks.waits(FILE, description).is_ok());
    locks.forget(FILE, Owner::Table(2));
    assert_eq!(first.outcome(), Some(Outcome::Given));
}

#[test]
fn a_circle_that_a_given_lock_closes_is_seen() {
    let _machine = machine();
    let mut locks = empty();
    // Two threads of one owner wait; the third owner waits behind the first.
    locks.has(FILE, write(1, 1));
    locks.has(FILE, write(3, 3));
    locks.has(FILE, write(4, 4));
    let gets = locks.waits(FILE, write(2, 1)).unwrap();
    let behind = locks.waits(FILE, write(3, 1)).unwrap();
    let circle = locks.waits(FILE, write(2, 3));
    assert!(circle.is_ok(), "who has the first byte does not wait");
    locks.forget(FILE, Owner::Table(1));
    assert_eq!(gets.outcome(), Some(Outcome::Given));
    assert_eq!(behind.outcome(), Some(Outcome::Circle));
}

#[test]
fn locks_have_an_end_and_splitting_counts() {
    let _machine = machine();
    let mut locks = empty();
    let mut files = 0;
    while locks.count + 1 < MOST {
        let key = Key {
            device: 2,
            ino: files,
        };
        let left = (MOST - 1 - locks.count).min(64);
        (0..left as u64).for_each(|at| locks.has(key, write(1, 2 * at)));
        files += 1;
    }
    locks.has(FILE, wanted(Owner::Table(1), Kind::Write, 0, 9));
    let one_more = locks.attempt(FILE, Sort::Record, &write(2, 20));
    assert_eq!(one_more, Ok(Outcome::NoRoom));
    let room = MOST - locks.count;
    let middle = Range { first: 5, last: 5 };
    let split = locks.change(FILE, |file| file.records.clear(Owner::Table(1), middle, room));
    assert_eq!(split, Some(Err(Full)));
    assert_eq!(
        locks.attempt(OTHER, Sort::Whole, &write(2, 0)),
        Ok(Outcome::NoRoom)
    );
    assert!(locks.get(OTHER).is_none());
}

fn file() -> Arc<OpenFile> {
    OpenFile::new(Arc::new(MemoryFile::Null), OpenFlags::RDWR)
}

/// Takes a lock of the table's, or of the file's own.
fn take(table: &Table, open: &OpenFile, owner: Owner, sort: Sort) -> Result<(), Error> {
    table.note_locks();
    open.note_locks();
    let wanted = Lock {
        description: description(open),
        ..wanted(owner, Kind::Write, 0, Range::END)
    };
    lock(open, sort, wanted, false)
}

#[test]
fn any_descriptor_takes_the_tables_locks_with_it_and_no_others() {
    let _machine = machine();
    let (table, other) = (Table::new(), Table::new());
    let (first, second) = (file(), file());
    assert_eq!(table.install(Arc::clone(&first), false), Ok(0));
    assert_eq!(table.install(Arc::clone(&second), true), Ok(1));
    let ours = |table: &Table| own(&first, table.owner(), Range::ALL).is_some();
    let closes: [&dyn Fn(&Table); 4] = [
        &|table| assert_eq!(table.close(1), Ok(())),
        &|table| table.close_range(1, 1, false),
        &|table| table.close_on_exec(),
        &|table| table.close_if(1, &second),
    ];
    for close in closes {
        assert_eq!(take(&table, &first, table.owner(), Sort::Record), Ok(()));
        assert_eq!(
            take(&other, &first, other.owner(), Sort::Record),
            Err(Errno::EAGAIN.into())
        );
        close(&table);
        assert!(!ours(&table));
        assert_eq!(table.install(Arc::clone(&second), true), Ok(1));
    }
    let copy = table.copy().unwrap();
    assert_eq!(take(&table, &first, table.owner(), Sort::Record), Ok(()));
    copy.close_all();
    assert!(ours(&table), "a copy is another owner");
    let owner = table.owner();
    drop(table);
    assert!(own(&first, owner, Range::ALL).is_none());
}

#[test]
fn a_descriptions_locks_are_gone_with_it() {
    let _machine = machine();
    let (table, first, second) = (Table::new(), file(), file());
    assert_eq!(take(&table, &first, first.owner(), Sort::Record), Ok(()));
    assert_eq!(take(&table, &first, first.owner(), Sort::Whole), Ok(()));
    for sort in [Sort::Record, Sort::Whole] {
        let refused = take(&table, &second, second.owner(), sort);
        assert_eq!(refused, Err(Errno::EAGAIN.into()));
    }
    let copy = Arc::clone(&first);
    drop(first);
    assert_eq!(through(&copy, table.owner()).map(|locks| locks.len()), Ok(2));
    drop(copy);
    for sort in [Sort::Record, Sort::Whole] {
        assert_eq!(take(&table, &second, second.owner(), sort), Ok(()));
    }
    assert_eq!(unlock(&second, Sort::Record, second.owner(), Range::ALL), Ok(()));
    drop(second);
    assert_eq!(all(), Ok(Vec::new()));
}
