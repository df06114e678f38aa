//! Planted bugs. A checker that never failed proves nothing, so tests plant one and must find it.
//!
//! Without the feature `mutants` none can be planted, and [`Mutants::has`] is `false` at compile time.

/// A planted bug: each variant leaves out one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A document of an earlier membership term decides placement.
    KeepDocument,
    /// Guests' requests go on while this node has no right to run VMs.
    NoHold,
    /// The peer is reported clean while its VMs are being failed over.
    CleanDuringFailOver,
    /// A node that leaves serves volumes and permits VMs.
    ServeWhileLeaving,
    /// The quorum thread is told that VMs may exist at changes only, also after a kill.
    TellVmsAtEdges,
    /// The garbage collection deletes volumes whose number was not given out yet.
    DeleteUnassigned,
    /// A volume gets a new writer before the old one knows it.
    NoHandover,
    /// A change of the document is decided when it is written, before it is durable.
    DecideUnflushed,
    /// A VM is deleted although its own node was not asked.
    DeleteForeignVm,
}

/// The planted bug in force: one or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mutants {
    #[cfg(feature = "mutants")]
    planted: Option<Mutant>,
}

impl Mutants {
    /// No planted bug.
    pub const NONE: Mutants = Mutants {
        #[cfg(feature = "mutants")]
        planted: None,
    };

    /// This planted bug.
    #[cfg(feature = "mutants")]
    #[must_use]
    pub fn plant(mutant: Mutant) -> Mutants {
        Mutants { planted: Some(mutant) }
    }

    /// Whether this bug is planted.
    #[inline]
    pub(crate) fn has(self, mutant: Mutant) -> bool {
        #[cfg(feature = "mutants")]
        return self.planted == Some(mutant);
        #[cfg(not(feature = "mutants"))]
        {
            let _ = mutant;
            false
        }
    }
}
