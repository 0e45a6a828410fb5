//! The memory manager.
//!
//! | module | what |
//! | --- | --- |
//! | [`addr`], [`range`] | address kinds, frame numbers, half-open ranges |

pub mod addr;
pub mod fault;
pub mod range;
pub mod space;
pub mod stack;
