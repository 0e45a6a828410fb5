//! The memory manager.
//!
//! | module | what |
//! | --- | --- |
//! | [`addr`], [`range`] | address kinds, frame numbers, half-open ranges |
//! | [`frame`] | who owns which frame; [`phys`]: their bytes |
//! | [`pt`] | page tables: one walker, formats plugged in |

pub mod addr;
pub mod fault;
pub mod frame;
pub mod phys;
pub mod pt;
pub mod range;
pub mod space;
pub mod stack;
