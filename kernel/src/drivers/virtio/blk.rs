//! A virtio disk, read-only use.
//!
//! ```text
//!   read(sector, buffer) ─► requests of up to 128 KiB ─► slots ─► queue ─► device
//!                 ▲                                        │
//!                 └──────────── copied out ◄───────────────┘   reap: whoever waits looks for all
//! ```
//!
//! The device writes into blocks that belong to the driver (a *slot* each), never into the caller's buffer: if it stops
//! answering, the driver can give it up and keep the blocks, and no late answer overwrites memory that is used for
//! something else by then. Several requests are under way at once, of one reader or of several tasks.
//!
//! Waiting is polling, with the CPU handed to other tasks between two looks: a fault that is being served is worth
//! more than an interrupt's latency. The wait never sleeps on the timer: an emulator that counts instructions lets an
//! idle CPU's time jump to the next timer, and a patience of half a minute would be over before a real disk has moved.
#![expect(unsafe_code, reason = "lends buffers to a device")]

use alloc::vec::Vec;
use core::ops::Range;

use arrayvec::ArrayVec;
use log::warn;
use virtio_drivers::device::blk::{BlkReq, BlkResp, VirtIOBlk};
use virtio_drivers::transport::DeviceType;
use virtio_drivers::transport::pci::{PciTransport, virtio_device_type};
use virtio_drivers::{Error, PAGE_SIZE};

use super::hal::Kernel;
use super::transport::Plain;
use crate::arch::{Clock, Cpu, Machine};
use crate::drivers::block::{self, BlockDevice, BlockError, SECTOR};
use crate::drivers::pci::{self, Function};
use crate::mm::frame::{Dma, Frame, OutOfFrames};
use crate::mm::phys;
use crate::sync::SpinLock;
use crate::task;

/// Requests under way at once; each takes three of the queue's sixteen descriptors.
const SLOTS: usize = 4;
/// Order of a slot's data block.
const SLOT_ORDER: u8 = 5;
/// Bytes of a slot's data block, and of the largest request.
const SLOT_BYTES: usize = PAGE_SIZE << SLOT_ORDER;
/// How long an answer is waited for. Disks behind a network take seconds at worst.
const PATIENCE_MILLIS: u64 = 30_000;

/// The parts of a request beside its data, in memory that the device reaches.
#[repr(C)]
struct Header {
    request: BlkReq,
    response: BlkResp,
}

#[derive(Debug)]
enum State {
    Free,
    /// The device has header and data; the queue knows the request by this token.
    Lent {
        token: u16,
        bytes: usize,
    },
    /// Header and data are the driver's again.
    Answered(Result<(), Error>),
}

#[derive(Debug)]
struct Slot {
    data: Frame<Dma>,
    state: State,
}

struct Device {
    blk: VirtIOBlk<Kernel, Plain>,
    /// A [`Header`] for each slot.
    headers: Frame<Dma>,
    slots: [Slot; SLOTS],
    dead: bool,
}

impl Device {
    fn header(&self, slot: usize) -> *mut Header {
        const { assert!(SLOTS * size_of::<Header>() <= PAGE_SIZE) };
        phys::frame_ptr(self.headers.pfn())
            .cast::<Header>()
            .wrapping_add(slot)
    }

    fn free_slot(&self) -> Option<usize> {
        self.slots
            .iter()
            .position(|slot| matches!(slot.state, State::Free))
    }

    /// Asks the device for `bytes` bytes from `sector` on.
    fn submit(&mut self, slot: usize, sector: u64, bytes: usize) -> Result<(), Error> {
        debug_assert!(matches!(self.slots[slot].state, State::Free));
        let header = self.header(slot);
        let data = &mut phys::bytes_mut(&mut self.slots[slot].data)[..bytes];
        // SAFETY: the header lies in a block of zeros or of earlier headers, both valid, and the slot is free: nobody
        // else refers to header or data. From here until `reap` sees the token, nobody does either.
        let token = unsafe {
            self.blk.read_blocks_nb(
                sector as usize,
                &mut (*header).request,
                data,
                &mut (*header).response,
            )
        }?;
        self.slots[slot].state = State::Lent { token, bytes };
        Ok(())
    }

    /// Takes back every slot that the device has answered.
    fn reap(&mut self) {
        while let Some(used) = self.blk.peek_used() {
            let lent = self
                .slots
                .iter()
                .enumerate()
                .find_map(|(index, slot)| match slot.state {
                    State::Lent { token, bytes } if token == used => Some((index, bytes)),
                    _ => None,
                });
            let Some((slot, bytes)) = lent else {
                // It answers what it was never asked: nothing that it says can be used.
                self.dead = true;
                return;
            };
            let header = self.header(slot);
            let data = &mut phys::bytes_mut(&mut self.slots[slot].data)[..bytes];
            // SAFETY: these are the buffers that `submit` passed with this token; the device is done with them.
            let answer = unsafe {
                self.blk
                    .complete_read_blocks(used, &(*header).request, data, &mut (*header).response)
            };
            self.slots[slot].state = State::Answered(answer);
        }
    }

    /// The answer for `slot`, which is free again then; on success `out` is filled.
    fn take(&mut self, slot: usize, out: &mut [u8]) -> Option<Result<(), Error>> {
        let slot = &mut self.slots[slot];
        let State::Answered(answer) = slot.state else {
            return None;
        };
        slot.state = State::Free;
        if answer.is_ok() {
            out.copy_from_slice(&phys::bytes(&slot.data)[..out.len()]);
        }
        Some(answer)
    }
}

/// A disk.
pub struct VirtioBlk {
    function: Function,
    capacity: u64,
    device: SpinLock<Device>,
}

/// Why a virtio disk that is there cannot be used.
#[derive(Clone, Debug)]
pub enum ProbeError {
    /// Its PCI capabilities are not those of a modern virtio device.
    Transport(virtio_drivers::transport::pci::VirtioPciError),
    /// It did not accept its queue or its features.
    Device(Error),
    /// No memory for its buffers.
    OutOfFrames,
}

impl core::fmt::Display for ProbeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Transport(error) => write!(f, "{error} (QEMU: not with disable-modern=on)"),
            Self::Device(error) => write!(f, "{error}"),
            Self::OutOfFrames => f.write_str("out of physical memory"),
        }
    }
}

impl From<OutOfFrames> for ProbeError {
    fn from(_: OutOfFrames) -> Self {
        Self::OutOfFrames
    }
}

/// The usable virtio disks among `functions`, in bus order; one that cannot be used is logged.
pub fn probe(functions: &[Function]) -> Vec<VirtioBlk> {
    let disks = functions
        .iter()
        .filter(|function| virtio_device_type(&function.info) == Some(DeviceType::Block));
    let start = |function: &Function| {
        VirtioBlk::new(function)
            .map_err(|error| warn!("virtio disk at {}: {error}", function.at))
            .ok()
    };
    disks.filter_map(start).collect()
}

impl VirtioBlk {
    /// Takes the disk into use.
    ///
    /// # Errors
    /// See [`ProbeError`].
    pub fn new(function: &Function) -> Result<Self, ProbeError> {
        function.enable();
        let transport =
            PciTransport::new::<Kernel, _>(&mut pci::root(), function.at).map_err(ProbeError::Transport)?;
        let mut blk = VirtIOBlk::new(Plain(transport)).map_err(ProbeError::Device)?;
        blk.disable_interrupts();
        let mut headers = Frame::alloc()?;
        phys::zero(&mut headers);
        let mut slots = ArrayVec::<Slot, SLOTS>::new();
        for _ in 0..SLOTS {
            slots.push(Slot {
                data: Frame::alloc_order(SLOT_ORDER)?,
                state: State::Free,
            });
        }
        let Ok(slots) = slots.into_inner() else {
            return Err(ProbeError::OutOfFrames);
        };
        let capacity = blk.capacity();
        let device = SpinLock::new(Device {
            blk,
            headers,
            slots,
            dead: false,
        });
        Ok(Self {
            function: function.clone(),
            capacity,
            device,
        })
    }

    /// The PCI function that it is.
    pub fn function(&self) -> &Function {
        &self.function
    }

    /// Reads without looking for the sector that is to blame: an error names the first sector of its request.
    fn read_requests(&self, sector: u64, buffer: &mut [u8]) -> Result<(), Failure> {
        let mut reader = Reader {
            sector,
            buffer,
            next: 0,
            pending: ArrayVec::new(),
            failure: None,
        };
        let mut waiting_since = Machine::ticks();
        loop {
            let progress = reader.step(&mut self.device.lock())?;
            if reader.is_done() {
                return reader.failure.map_or(Ok(()), Err);
            }
            if progress {
                waiting_since = Machine::ticks();
            }
            let millis = Machine::ticks().wrapping_sub(waiting_since) / (Machine::frequency() / 1000).max(1);
            if millis > PATIENCE_MILLIS {
                self.device.lock().dead = true;
                let sector = reader.oldest();
                return Err(Failure::Final(BlockError::TimedOut {
                    sector,
                    millis: PATIENCE_MILLIS,
                }));
            }
            Machine::relax();
            task::yield_now();
        }
    }

    /// The first of `sectors` that the device cannot read by itself.
    fn first_bad(&self, sectors: Range<u64>) -> Option<u64> {
        let mut buffer = [0; SECTOR];
        sectors
            .into_iter()
            .find(|&sector| self.read_requests(sector, &mut buffer).is_err())
    }
}

/// Why a read failed.
#[derive(Clone, Debug)]
enum Failure {
    /// The device reported an error for a request for these sectors.
    Io(Range<u64>),
    /// Anything that asking again does not change.
    Final(BlockError),
}

/// One call of `read` under way.
struct Reader<'a> {
    sector: u64,
    buffer: &'a mut [u8],
    /// First byte that has not been asked for.
    next: usize,
    /// Slots of this reader and the bytes they are for.
    pending: ArrayVec<(usize, Range<usize>), SLOTS>,
    /// What went wrong first; nothing more is asked for then.
    failure: Option<Failure>,
}

impl Reader<'_> {
    /// Takes what was answered and asks for more; says whether there was an answer.
    fn step(&mut self, device: &mut Device) -> Result<bool, Failure> {
        device.reap();
        if device.dead {
            return Err(Failure::Final(BlockError::Dead));
        }
        let answered = self.collect(device);
        while self.failure.is_none() && self.next < self.buffer.len() {
            let Some(slot) = device.free_slot() else { break };
            let bytes = self.next..self.buffer.len().min(self.next + SLOT_BYTES);
            let sector = self.sectors(&bytes).start;
            match device.submit(slot, sector, bytes.len()) {
                Ok(()) => {
                    self.next = bytes.end;
                    self.pending.push((slot, bytes));
                }
                Err(Error::QueueFull) => break,
                Err(error) => self.failure = Some(Failure::Final(refused(sector, error))),
            }
        }
        Ok(answered)
    }

    fn collect(&mut self, device: &mut Device) -> bool {
        let mut answered = false;
        for index in (0..self.pending.len()).rev() {
            let (slot, bytes) = self.pending[index].clone();
            let Some(answer) = device.take(slot, &mut self.buffer[bytes.clone()]) else {
                continue;
            };
            self.pending.remove(index);
            answered = true;
            let sectors = self.sectors(&bytes);
            match answer {
                Ok(()) => {}
                Err(Error::IoError) => self.failure = Some(Failure::Io(sectors)),
                Err(error) => self.failure = Some(Failure::Final(refused(sectors.start, error))),
            }
        }
        answered
    }

    fn sectors(&self, bytes: &Range<usize>) -> Range<u64> {
        let sector = |byte: usize| self.sector + (byte / SECTOR) as u64;
        sector(bytes.start)..sector(bytes.end)
    }

    fn oldest(&self) -> u64 {
        let first = self.pending.iter().map(|(_, bytes)| bytes.start).min();
        self.sector + (first.unwrap_or(self.next) / SECTOR) as u64
    }

    fn is_done(&self) -> bool {
        self.pending.is_empty() && (self.failure.is_some() || self.next == self.buffer.len())
    }
}

fn refused(sector: u64, error: Error) -> BlockError {
    let reason = match error {
        Error::QueueFull => "the queue is full",
        Error::Unsupported => "the device does not support it",
        Error::NotReady => "the device is not ready",
        _ => "the device broke the protocol",
    };
    BlockError::Refused { sector, reason }
}

impl BlockDevice for VirtioBlk {
    fn capacity_sectors(&self) -> u64 {
        self.capacity
    }

    fn read(&self, sector: u64, buffer: &mut [u8]) -> Result<(), BlockError> {
        block::check(sector, buffer.len(), self.capacity)?;
        match self.read_requests(sector, buffer) {
            Ok(()) => Ok(()),
            Err(Failure::Final(error)) => Err(error),
            Err(Failure::Io(sectors)) => {
                let sector = sectors.start;
                let only = sectors.end - sector == 1;
                let blamed = if only { None } else { self.first_bad(sectors) };
                Err(BlockError::Io {
                    sector: blamed.unwrap_or(sector),
                })
            }
        }
    }
}
