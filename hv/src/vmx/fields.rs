//! Fields of a VMCS by name (Intel SDM vol. 3D, appendix B "Field Encoding in VMCS").
#![expect(missing_docs, reason = "named after the fields")]

/// The encoding of a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field(pub u32);

/// The fields of one segment register.
#[derive(Clone, Copy, Debug)]
pub struct SegmentFields {
    /// The visible part.
    pub selector: Field,
    /// Bytes, less one.
    pub limit: Field,
    /// Descriptor bits.
    pub rights: Field,
    /// Where it begins.
    pub base: Field,
}

impl SegmentFields {
    /// Those of the `n`th: ES, CS, SS, DS, FS, GS, LDTR, TR.
    const fn numbered(n: u32) -> Self {
        Self {
            selector: Field(0x800 + 2 * n),
            limit: Field(0x4800 + 2 * n),
            rights: Field(0x4814 + 2 * n),
            base: Field(0x6806 + 2 * n),
        }
    }
}

/// Segment registers of the guest.
pub mod segment {
    use super::SegmentFields;

    pub const ES: SegmentFields = SegmentFields::numbered(0);
    pub const CS: SegmentFields = SegmentFields::numbered(1);
    pub const SS: SegmentFields = SegmentFields::numbered(2);
    pub const DS: SegmentFields = SegmentFields::numbered(3);
    pub const FS: SegmentFields = SegmentFields::numbered(4);
    pub const GS: SegmentFields = SegmentFields::numbered(5);
    pub const LDTR: SegmentFields = SegmentFields::numbered(6);
    pub const TR: SegmentFields = SegmentFields::numbered(7);
}

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident = $encoding:literal;)*) => {$(
        $(#[$doc])*
        pub const $name: Field = Field($encoding);
    )*};
}

// Controls.
fields! {
    VPID = 0x0000;
    /// Which entry of the list of roots is in force; #VE reports it.
    ROOT_INDEX = 0x0004;
    MSR_BITMAP = 0x2004;
    /// Which functions VMFUNC has.
    FUNCTIONS = 0x2018;
    EPT_POINTER = 0x201a;
    /// The list of roots for VMFUNC.
    ROOT_LIST = 0x2024;
    /// Where #VE describes a violation.
    EXCEPTION_INFO = 0x202a;
    PIN_CONTROLS = 0x4000;
    PRIMARY_CONTROLS = 0x4002;
    EXCEPTION_BITMAP = 0x4004;
    PAGE_FAULT_MASK = 0x4006;
    PAGE_FAULT_MATCH = 0x4008;
    CR3_TARGETS = 0x400a;
    EXIT_CONTROLS = 0x400c;
    EXIT_MSR_STORES = 0x400e;
    EXIT_MSR_LOADS = 0x4010;
    ENTRY_CONTROLS = 0x4012;
    ENTRY_MSR_LOADS = 0x4014;
    /// What an entry delivers to the guest.
    ENTRY_EVENT = 0x4016;
    ENTRY_ERROR_CODE = 0x4018;
    ENTRY_INSTRUCTION_LENGTH = 0x401a;
    SECONDARY_CONTROLS = 0x401e;
    CR0_MASK = 0x6000;
    CR4_MASK = 0x6002;
    CR0_SHADOW = 0x6004;
    CR4_SHADOW = 0x6006;
}

// What an exit leaves, read-only.
fields! {
    EXIT_GUEST_PHYSICAL = 0x2400;
    INSTRUCTION_ERROR = 0x4400;
    EXIT_REASON = 0x4402;
    EXIT_INTERRUPTION = 0x4404;
    EXIT_ERROR_CODE = 0x4406;
    /// What was being delivered to the guest.
    VECTORING = 0x4408;
    VECTORING_ERROR_CODE = 0x440a;
    EXIT_INSTRUCTION_LENGTH = 0x440c;
    EXIT_QUALIFICATION = 0x6400;
    EXIT_LINEAR = 0x640a;
}

// The guest's state.
fields! {
    LINK_POINTER = 0x2800;
    GUEST_DEBUGCTL = 0x2802;
    GUEST_PAT = 0x2804;
    GUEST_EFER = 0x2806;
    GUEST_GDTR_LIMIT = 0x4810;
    GUEST_IDTR_LIMIT = 0x4812;
    INTERRUPTIBILITY = 0x4824;
    ACTIVITY = 0x4826;
    GUEST_SYSENTER_CS = 0x482a;
    PREEMPTION_TIMER = 0x482e;
    GUEST_CR0 = 0x6800;
    GUEST_CR3 = 0x6802;
    GUEST_CR4 = 0x6804;
    GUEST_GDTR_BASE = 0x6816;
    GUEST_IDTR_BASE = 0x6818;
    GUEST_DR7 = 0x681a;
    GUEST_RSP = 0x681c;
    GUEST_RIP = 0x681e;
    GUEST_RFLAGS = 0x6820;
    PENDING_DEBUG = 0x6822;
    GUEST_SYSENTER_ESP = 0x6824;
    GUEST_SYSENTER_EIP = 0x6826;
}

// The host's state, loaded by an exit.
fields! {
    HOST_ES = 0x0c00;
    HOST_CS = 0x0c02;
    HOST_SS = 0x0c04;
    HOST_DS = 0x0c06;
    HOST_FS = 0x0c08;
    HOST_GS = 0x0c0a;
    HOST_TR = 0x0c0c;
    HOST_PAT = 0x2c00;
    HOST_EFER = 0x2c02;
    HOST_SYSENTER_CS = 0x4c00;
    HOST_CR0 = 0x6c00;
    HOST_CR3 = 0x6c02;
    HOST_CR4 = 0x6c04;
    HOST_FS_BASE = 0x6c06;
    HOST_GS_BASE = 0x6c08;
    HOST_TR_BASE = 0x6c0a;
    HOST_GDTR_BASE = 0x6c0c;
    HOST_IDTR_BASE = 0x6c0e;
    HOST_SYSENTER_ESP = 0x6c10;
    HOST_SYSENTER_EIP = 0x6c12;
    HOST_RSP = 0x6c14;
    HOST_RIP = 0x6c16;
}
