//! A tree from the entries of a cpio archive.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::body::Body;
use super::node::{Kind, Node, TmpFs};
use crate::abi::errno::Errno;
use crate::abi::stat::{S_IFDIR, S_IFLNK, S_IFMT};
use crate::drivers::ramdisk::Ramdisk;

/// Members whose names begin so say what is to be done with the others, and are not part of the tree.
const NOT_IN_THE_TREE: &str = ".faultline/";

/// The components of a member's name: `.`, `..` and empty ones lead nowhere.
fn components(name: &str) -> impl Iterator<Item = &str> {
    name.split('/').filter(|part| !matches!(*part, "" | "." | ".."))
}

/// The path of a member in the tree.
pub fn guest_path(name: &str) -> Vec<u8> {
    components(name).fold(Vec::new(), |mut path, part| {
        path.push(b'/');
        path.extend_from_slice(part.as_bytes());
        path
    })
}

/// Puts the members of `disk` into the tree of `root`; directories on the way are made. A member that is there already is
/// replaced, unless both are directories.
///
/// # Errors
/// ENOTDIR: a member lies below one that is no directory.
pub fn fill(fs: &Arc<TmpFs>, root: &Arc<Node>, disk: &Ramdisk<'static>) -> Result<(), Errno> {
    for member in disk.files() {
        if member.name.starts_with(NOT_IN_THE_TREE) {
            continue;
        }
        let parts: Vec<&str> = components(member.name).collect();
        let Some((name, above)) = parts.split_last() else {
            continue;
        };
        let mut dir = Arc::clone(root);
        for part in above {
            dir = directory(fs, &dir, part.as_bytes())?;
        }
        let name = name.as_bytes();
        match member.mode & S_IFMT {
            S_IFDIR => drop(directory(fs, &dir, name)?),
            S_IFLNK => put(&dir, name, fs.node(0o777, Kind::Symlink(member.data.into())))?,
            _ => {
                let body = Body::of_bytes(member.data, fs.quota());
                let node = fs.node(member.mode, Kind::Regular(Arc::new(body)));
                node.introduce();
                put(&dir, name, node)?;
            }
        }
    }
    Ok(())
}

/// The directory with a name in `dir`; made if it is not there.
fn directory(fs: &Arc<TmpFs>, dir: &Arc<Node>, name: &[u8]) -> Result<Arc<Node>, Errno> {
    match dir.child(name) {
        Err(Errno::ENOENT) => {
            let made = fs.root(0o755);
            dir.add(name, Arc::clone(&made))?;
            Ok(made)
        }
        found => found,
    }
}

fn put(dir: &Arc<Node>, name: &[u8], node: Arc<Node>) -> Result<(), Errno> {
    use crate::file::tree::Directory;
    if dir.child(name).is_ok() {
        dir.remove(name)?;
    }
    dir.add(name, node)
}
