//! This kernel as a guest of Faultline's own hypervisor.
//!
//! ```text
//!   guest    boot/guest ── kernel library ── calls ──────────┐ hypercall
//!                              ▲     ▲                       ▼
//!   host                 entry │     │ injected vector      hv
//! ```
//!
//! The contract is [`abi::guest`](crate::abi::guest). What differs from a machine of one's own:
//!
//! | what | in a guest |
//! | --- | --- |
//! | tick | `calls::timer`; no APIC, no end of interrupt |
//! | clock | the frequency is told |
//! | console | the debug console takes the text; there are no records |
//! | end | `calls::exit`, with an [`ExitCode`](crate::abi::guest::ExitCode) |
//!
//! | module | what |
//! | --- | --- |
//! | [`answer`] | what comes back from a call |
//! | [`ring`], [`violation`] | pages in which faults are described |
//! | `calls` | the calls, typed (bare metal) |
//! | `pages` | such pages, shared with the hypervisor (bare metal) |
//! | `monitor`, `backing` | faults on delegated memory: messages of the guest's own channel, resolved by calls (bare metal) |

pub mod answer;
#[cfg(target_os = "none")]
pub mod backing;
#[cfg(target_os = "none")]
pub mod calls;
#[cfg(target_os = "none")]
pub mod monitor;
#[cfg(target_os = "none")]
mod pages;
pub mod ring;
pub mod violation;
