//! Drivers.
//!
//! | module | what | hardware |
//! | --- | --- | --- |
//! | [`ramdisk`] | reader of the initial ramdisk, a cpio "newc" archive | none |
//! | [`block`] | what a block device is, and its errors | none |
//! | [`source`] | a snapshot's pages, from memory or from a block device | none |
//! | [`fbcon`] | text on a framebuffer | the loader's framebuffer |
//! | `loader_memory` | the ramdisk and the framebuffer as slices | none |
//! | `pci` | what is on the PCI bus | ports 0xcf8 and 0xcfc |
//! | `virtio` | virtio disks | PCI functions of vendor 0x1af4 |
//! | `serial` | COM1, human-readable text | 16550 UART at ports 0x3f8-0x3ff |
//! | `debugcon` | records for the host side | port 0xe9 of QEMU and Bochs |
//! | `rtc`, [`rtc_date`] | the date at the start | MC146818 at ports 0x70 and 0x71 |
//! | [`stdio`] | standard input, output and error of programs | debug consoles at 0xea and 0xeb, COM2 |
//! | `exit` | the end of a run | QEMU's exit device, Bochs' shutdown port, 8042 and 0xcf9 reset |
//!
//! A driver owns its ports: nobody else touches them. What a driver returns is typed and names the device, and absence
//! of a device is a state, never a fault.

pub mod block;
#[cfg(target_os = "none")]
pub mod debugcon;
#[cfg(target_os = "none")]
pub mod exit;
pub mod fbcon;
#[cfg(target_os = "none")]
pub mod loader_memory;
#[cfg(target_os = "none")]
pub mod pci;
pub mod ramdisk;
#[cfg(target_os = "none")]
pub mod rtc;
pub mod rtc_date;
#[cfg(target_os = "none")]
pub mod serial;
pub mod source;
pub mod stdio;
#[cfg(target_os = "none")]
pub mod virtio;
