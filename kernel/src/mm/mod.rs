//! The memory manager.
//!
//! ```text
//!   fault ──► space ──► vma, memtype        what is mapped, and how it behaves
//!               │
//!               ▼
//!              pt ──► frame ──► phys        entries, owners, bytes
//!               ▲
//!             kmap, stack, heap             the kernel's own half
//! ```
//!
//! | module | what |
//! | --- | --- |
//! | [`addr`], [`range`] | address kinds, frame numbers, half-open ranges |
//! | [`frame`] | who owns which frame; [`phys`]: their bytes |
//! | [`pt`] | page tables: one walker, formats plugged in |
//! | [`vma`], [`memtype`] | areas of an address space and what their memory is |
//! | [`cache`] | memory objects and their pages |
//! | [`space`] | address spaces: mapping, faulting, filling |
//! | [`pressure`] | what to do when no frame is free |
//! | [`fault`] | from a page-fault exception to a verdict |
//! | [`uaccess`] | task memory as the kernel, and tasks of the kernel's, reach it |
//! | [`kernel`], [`kmap`], [`stack`], `heap`, `reserve`, [`init`] | the kernel's own memory |

pub mod addr;
pub mod cache;
pub mod fault;
pub mod frame;
#[cfg(target_os = "none")]
pub mod heap;
pub mod init;
pub mod kernel;
pub mod kmap;
pub mod memtype;
pub mod phys;
pub mod pressure;
pub mod pt;
pub mod range;
pub(crate) mod reserve;
pub mod space;
pub mod stack;
pub mod uaccess;
pub mod vma;
