//! `/dev/userfaultfd`: whoever can open it may watch accesses of the kernel.

use core::fmt;

use super::UserfaultFile;
use crate::abi::errno::Errno;
use crate::abi::uffd::USERFAULTFD_IOC_NEW;
use crate::file::{File, OpenFile};
use crate::syscall::Error;
use crate::uffd::linux::{Opener, Way};

/// The device, open.
#[derive(Debug)]
pub struct DeviceFile;

impl File for DeviceFile {
    fn label(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        f.write_str("/dev/userfaultfd")
    }

    /// `USERFAULTFD_IOC_NEW`, with the flags for an argument.
    fn ioctl(&self, _open: &OpenFile, command: u32, argument: u64) -> Result<u64, Error> {
        if command != USERFAULTFD_IOC_NEW {
            return Err(Errno::EINVAL.into());
        }
        let opener = Opener {
            way: Way::Device,
            may_trace: false,
            everybody_may: false,
        };
        let thread = crate::process::current();
        let process = thread.process();
        Ok(UserfaultFile::open(
            process.mm().space(),
            &process.files(),
            argument as u32,
            opener,
        )?)
    }
}
