//! Paths, and what changes names, on a tmpfs. The expected errors are Linux 6.18's.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Entry, Last, New, Place, Replace, link, remove, rename};
use crate::abi::errno::Errno;
use crate::arch::host::{Config, Running, SoftMachine};
use crate::drivers::ramdisk::Ramdisk;
use crate::file::{FsKind, Mounts, OpenFile, OpenFlags, Sink, Source};
use crate::syscall::Error;

struct World {
    place: Arc<Place>,
    _machine: Running,
}

fn world() -> World {
    let machine = SoftMachine::start(Config::default());
    let mounts = Mounts::new(&Ramdisk::EMPTY).unwrap();
    World {
        place: Place::new(&mounts),
        _machine: machine,
    }
}

impl World {
    fn find(&self, path: &str) -> Result<Arc<Entry>, Errno> {
        self.place.find(None, path.as_bytes(), Last::Follow)
    }

    fn open(&self, path: &str, flags: OpenFlags) -> Result<Arc<OpenFile>, Error> {
        self.place.open(None, path.as_bytes(), flags, 0o644)
    }

    fn make(&self, path: &str, new: New<'_>) -> Result<(), Errno> {
        self.place.make(None, path.as_bytes(), new, 0o777).map(drop)
    }

    fn mkdir(&self, path: &str) -> Result<(), Errno> {
        self.make(path, New::Directory)
    }

    fn file(&self, path: &str, contents: &str) {
        let file = self.open(path, OpenFlags::CREAT | OpenFlags::RDWR).unwrap();
        let written = file.write(&mut Source::kernel(contents.as_bytes()), false);
        assert_eq!(written, Ok(contents.len()));
    }

    fn contents(&self, path: &str) -> Result<Vec<u8>, Error> {
        let file = self.open(path, OpenFlags::empty())?;
        let mut bytes = [0; 64];
        let len = file.read(&mut Sink::kernel(&mut bytes), false)?;
        Ok(bytes[..len].to_vec())
    }

    fn remove(&self, path: &str, directory: bool) -> Result<(), Errno> {
        remove(&self.place.walk(None, path.as_bytes(), Last::Name)?, directory)
    }

    fn rename(&self, from: &str, to: &str, how: Replace) -> Result<(), Errno> {
        let from = self.place.walk(None, from.as_bytes(), Last::Name)?;
        let to = self.place.walk(None, to.as_bytes(), Last::Name)?;
        rename(&from, &to, how)
    }

    fn path(&self, entry: &Arc<Entry>) -> Vec<u8> {
        entry.shown(&self.place.root())
    }
}

#[test]
fn what_is_written_is_read_back() {
    let world = world();
    world.file("/tmp/a", "hello");
    assert_eq!(world.contents("/tmp/a"), Ok(b"hello".to_vec()));
    assert_eq!(world.contents("/tmp/b"), Err(Errno::ENOENT.into()));
    assert_eq!(world.contents("/tmp/a/b"), Err(Errno::ENOTDIR.into()));
    assert_eq!(world.contents("/tmp/a/"), Err(Errno::ENOTDIR.into()));
    assert_eq!(world.contents("/tmp"), Err(Errno::EISDIR.into()));
    assert_eq!(world.find("").err(), Some(Errno::ENOENT));
}

#[test]
fn dots_and_slashes_lead_where_they_should() {
    let world = world();
    world.mkdir("/tmp/d").unwrap();
    world.mkdir("/tmp/d/e").unwrap();
    let d = world.find("/tmp/d").unwrap();
    for path in [
        "/tmp//d/",
        "/tmp/./d/.",
        "/tmp/d/e/..",
        "/../tmp/d",
        "//tmp/d/e/../../d",
    ] {
        assert!(Arc::ptr_eq(&world.find(path).unwrap(), &d), "{path}");
    }
    world.place.set_cwd(Arc::clone(&d)).unwrap();
    assert_eq!(world.path(&world.find("e").unwrap()), b"/tmp/d/e");
    assert!(Arc::ptr_eq(&world.find("e/..").unwrap(), &d));
}

#[test]
fn links_are_followed_and_loops_end() {
    let world = world();
    world.file("/tmp/a", "x");
    world.make("/tmp/l", New::Symlink(b"a")).unwrap();
    world.make("/tmp/m", New::Symlink(b"/tmp/l")).unwrap();
    world.make("/tmp/loop", New::Symlink(b"loop")).unwrap();
    world.make("/tmp/dangling", New::Symlink(b"new")).unwrap();
    world.make("/tmp/dir", New::Symlink(b"../tmp")).unwrap();
    assert_eq!(world.contents("/tmp/m"), Ok(b"x".to_vec()));
    assert_eq!(world.contents("/tmp/dir/l"), Ok(b"x".to_vec()));
    assert_eq!(world.contents("/tmp/loop"), Err(Errno::ELOOP.into()));
    assert_eq!(world.contents("/tmp/dangling"), Err(Errno::ENOENT.into()));
    let nofollow = world.open("/tmp/l", OpenFlags::NOFOLLOW);
    assert_eq!(nofollow.err(), Some(Errno::ELOOP.into()));
    let exclusive = OpenFlags::CREAT | OpenFlags::EXCL;
    assert_eq!(
        world.open("/tmp/dangling", exclusive).err(),
        Some(Errno::EEXIST.into())
    );
    world.file("/tmp/dangling", "made");
    assert_eq!(world.contents("/tmp/new"), Ok(b"made".to_vec()));
}

#[test]
fn names_that_are_too_long_are_refused() {
    let world = world();
    let long = "x".repeat(256);
    assert_eq!(world.find(&long).err(), Some(Errno::ENAMETOOLONG));
    assert_eq!(world.find(&"x".repeat(255)).err(), Some(Errno::ENOENT));
    assert_eq!(world.find(&"/".repeat(4096)).err(), Some(Errno::ENAMETOOLONG));
    assert!(world.find(&"/".repeat(4095)).is_ok());
}

#[test]
fn making_what_is_there_is_refused() {
    let world = world();
    assert_eq!(world.mkdir("/tmp"), Err(Errno::EEXIST));
    assert_eq!(world.mkdir("/"), Err(Errno::EEXIST));
    assert_eq!(world.mkdir("/tmp/."), Err(Errno::EEXIST));
    assert_eq!(world.mkdir("/tmp/d/"), Ok(()));
    assert_eq!(world.make("/tmp/s/", New::Symlink(b"x")), Err(Errno::ENOENT));
    assert_eq!(world.mkdir("/tmp/x/y"), Err(Errno::ENOENT));
    let created = OpenFlags::CREAT | OpenFlags::WRONLY;
    assert_eq!(world.open("/tmp/f/", created).err(), Some(Errno::EISDIR.into()));
    assert_eq!(world.open("/tmp", created).err(), Some(Errno::EISDIR.into()));
}

#[test]
fn removing_has_an_error_for_everything() {
    let world = world();
    world.mkdir("/tmp/d").unwrap();
    world.file("/tmp/d/f", "");
    let rows = [
        ("/tmp/d", false, Errno::EISDIR),
        ("/tmp/d", true, Errno::ENOTEMPTY),
        ("/tmp/d/f", true, Errno::ENOTDIR),
        ("/tmp/d/f/", false, Errno::ENOTDIR),
        ("/tmp/d/.", true, Errno::EINVAL),
        ("/tmp/d/..", true, Errno::ENOTEMPTY),
        ("/tmp/d/.", false, Errno::EISDIR),
        ("/", true, Errno::EBUSY),
        ("/proc", true, Errno::EBUSY),
        ("/tmp/no", false, Errno::ENOENT),
    ];
    for (path, directory, errno) in rows {
        assert_eq!(world.remove(path, directory), Err(errno), "{path} {directory}");
    }
    assert_eq!(world.remove("/tmp/d/f", false), Ok(()));
    assert_eq!(world.remove("/tmp/d", true), Ok(()));
    assert_eq!(world.find("/tmp/d").err(), Some(Errno::ENOENT));
}

#[test]
fn a_file_without_a_name_can_still_be_read() {
    let world = world();
    world.file("/tmp/a", "kept");
    let file = world.open("/tmp/a", OpenFlags::empty()).unwrap();
    world.remove("/tmp/a", false).unwrap();
    let mut bytes = [0; 8];
    assert_eq!(file.read(&mut Sink::kernel(&mut bytes), false), Ok(4));
    assert_eq!(file.stat().nlink, 0);
    assert_eq!(file.shown(&world.place.root()), b"/tmp/a (deleted)");
}

#[test]
fn a_directory_that_is_gone_takes_no_names() {
    let world = world();
    world.mkdir("/tmp/d").unwrap();
    world.place.set_cwd(world.find("/tmp/d").unwrap()).unwrap();
    world.remove("/tmp/d", true).unwrap();
    assert_eq!(world.mkdir("e"), Err(Errno::ENOENT));
    assert_eq!(world.find("e").err(), Some(Errno::ENOENT));
    assert!(world.find(".").is_ok());
    assert!(Arc::ptr_eq(
        &world.find("..").unwrap(),
        &world.find("/tmp").unwrap()
    ));
}

#[test]
fn renaming_moves_replaces_and_exchanges() {
    let world = world();
    world.mkdir("/tmp/d").unwrap();
    world.file("/tmp/a", "a");
    world.file("/tmp/d/b", "b");
    let open = world.find("/tmp/a").unwrap();
    assert_eq!(world.rename("/tmp/a", "/tmp/d/c", Replace::No), Ok(()));
    assert_eq!(
        world.path(&open),
        b"/tmp/d/c",
        "whoever holds it sees the new name"
    );
    assert_eq!(world.contents("/tmp/d/c"), Ok(b"a".to_vec()));
    assert_eq!(world.contents("/tmp/a"), Err(Errno::ENOENT.into()));
    assert_eq!(world.rename("/tmp/d/c", "/tmp/d/b", Replace::Exchange), Ok(()));
    assert_eq!(world.contents("/tmp/d/c"), Ok(b"b".to_vec()));
    assert_eq!(world.path(&open), b"/tmp/d/b");
    assert_eq!(world.rename("/tmp/d/c", "/tmp/d/b", Replace::Yes), Ok(()));
    assert_eq!(world.contents("/tmp/d/b"), Ok(b"b".to_vec()));
    assert_eq!(world.find("/tmp/d/c").err(), Some(Errno::ENOENT));
    assert!(open.is_gone());
}

#[test]
fn renaming_has_an_error_for_everything() {
    let world = world();
    world.mkdir("/tmp/d").unwrap();
    world.mkdir("/tmp/d/e").unwrap();
    world.mkdir("/tmp/empty").unwrap();
    world.file("/tmp/f", "f");
    let rows = [
        ("/tmp/no", "/tmp/x", Replace::Yes, Errno::ENOENT),
        ("/tmp/f", "/tmp/d", Replace::Yes, Errno::EISDIR),
        ("/tmp/d", "/tmp/f", Replace::Yes, Errno::ENOTDIR),
        ("/tmp/empty", "/tmp/d", Replace::Yes, Errno::ENOTEMPTY),
        ("/tmp/d", "/tmp/d/e/x", Replace::Yes, Errno::EINVAL),
        ("/tmp/d/e", "/tmp/d", Replace::Yes, Errno::ENOTEMPTY),
        ("/tmp/f", "/tmp/d", Replace::No, Errno::EEXIST),
        ("/tmp/f", "/tmp/x", Replace::Exchange, Errno::ENOENT),
        ("/tmp/f", "/dev/shm/f", Replace::Yes, Errno::EXDEV),
        ("/tmp/.", "/tmp/x", Replace::Yes, Errno::EBUSY),
        ("/tmp/f", "/tmp/x/", Replace::Yes, Errno::ENOTDIR),
        ("/proc", "/tmp/x", Replace::Yes, Errno::EBUSY),
    ];
    for (from, to, how, errno) in rows {
        assert_eq!(world.rename(from, to, how), Err(errno), "{from} {to}");
    }
    assert_eq!(world.rename("/tmp/d", "/tmp/empty", Replace::Yes), Ok(()));
    assert!(world.find("/tmp/empty/e").is_ok());
}

#[test]
fn a_second_name_is_the_same_file() {
    let world = world();
    world.file("/tmp/a", "one");
    let old = world.find("/tmp/a").unwrap();
    let to = |path: &str| world.place.walk(None, path.as_bytes(), Last::Name).unwrap();
    assert_eq!(link(&old, &to("/tmp/b")), Ok(()));
    assert_eq!(link(&old, &to("/tmp/b")), Err(Errno::EEXIST));
    assert_eq!(link(&old, &to("/dev/b")), Err(Errno::EXDEV));
    assert_eq!(
        link(&world.find("/tmp").unwrap(), &to("/tmp/c")),
        Err(Errno::EPERM)
    );
    assert_eq!(old.inode().stat().nlink, 2);
    world.file("/tmp/b", "two");
    assert_eq!(world.contents("/tmp/a"), Ok(b"two".to_vec()));
    assert_eq!(world.rename("/tmp/a", "/tmp/b", Replace::Yes), Ok(()));
    assert!(
        world.find("/tmp/a").is_ok(),
        "nothing happens between two names of a file"
    );
}

#[test]
fn paths_of_any_depth_are_made_and_let_go() {
    let world = world();
    world.place.set_cwd(world.find("/tmp").unwrap()).unwrap();
    for _ in 0..20_000 {
        world.mkdir("d").unwrap();
        world.place.set_cwd(world.find("d").unwrap()).unwrap();
    }
    let deep = world.place.cwd();
    world.place.set_cwd(world.find("/").unwrap()).unwrap();
    assert_eq!(world.path(&deep).len(), 4 + 2 * 20_000);
}

#[test]
fn open_truncates_appends_and_makes_files_without_names() {
    let world = world();
    world.file("/tmp/a", "12345");
    let file = world
        .open("/tmp/a", OpenFlags::WRONLY | OpenFlags::APPEND)
        .unwrap();
    assert_eq!(file.write(&mut Source::kernel(b"67"), false), Ok(2));
    assert_eq!(file.position(), 7);
    assert_eq!(world.contents("/tmp/a"), Ok(b"1234567".to_vec()));
    drop(
        world
            .open("/tmp/a", OpenFlags::WRONLY | OpenFlags::TRUNC)
            .unwrap(),
    );
    assert_eq!(world.contents("/tmp/a"), Ok(Vec::new()));
    let unnamed = OpenFlags::TMPFILE_BIT | OpenFlags::DIRECTORY;
    assert_eq!(world.open("/tmp", unnamed).err(), Some(Errno::EINVAL.into()));
    let file = world.open("/tmp", unnamed | OpenFlags::RDWR).unwrap();
    assert_eq!(file.write(&mut Source::kernel(b"x"), false), Ok(1));
    assert_eq!(file.stat().nlink, 0);
}

#[test]
fn what_is_mounted_hides_the_directory_until_it_is_unmounted() {
    let world = world();
    world.mkdir("/tmp/d").unwrap();
    world.mkdir("/tmp/d/below").unwrap();
    let covered = world.find("/tmp/d").unwrap();
    let mounts = Arc::clone(world.place.mounts());
    let kind = FsKind::Tmp {
        bytes: Some(0x4000),
        mode: 0o755,
    };
    mounts.mount(&covered, kind).unwrap();
    assert_eq!(world.find("/tmp/d/below").err(), Some(Errno::ENOENT));
    assert!(mounts.lines().contains("tmpfs /tmp/d tmpfs"));
    world.mkdir("/tmp/d/inside").unwrap();

    let root = world.find("/tmp/d").unwrap();
    let inside = world.find("/tmp/d/inside").unwrap();
    assert_eq!(mounts.unmount(&root, false), Err(Errno::EBUSY));
    mounts.unmount(&root, true).unwrap();
    assert_eq!(mounts.unmount(&root, true), Err(Errno::EINVAL));
    assert!(world.find("/tmp/d/below").is_ok());
    assert_eq!(world.find("/tmp/d/inside").err(), Some(Errno::ENOENT));
    assert!(!mounts.lines().contains("/tmp/d"));
    drop((root, inside));

    let root = world.find("/").unwrap();
    assert_eq!(mounts.mount(&root, kind), Err(Errno::EBUSY));
    assert_eq!(mounts.unmount(&root, true), Err(Errno::EINVAL));
}
