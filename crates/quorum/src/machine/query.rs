//! Queries of the daemon. They change nothing and are allowed at any time.

use super::*;

impl Quorum {
    /// The newest configuration in force here, durably.
    pub fn config(&self) -> &Config {
        self.register.base()
    }

    /// The durable record.
    pub fn record(&self) -> &AcceptorRecord {
        self.register.record()
    }

    /// Whether VMs of this node may execute at `now` if no event comes before that.
    pub fn may_run(&self, now: BootTime) -> bool {
        self.with_rights(now, |rights| rights.may_run())
    }

    /// R1: whether the tie is firm here, so that no lease is needed.
    pub fn tie_firm(&self) -> bool {
        self.with_rights(self.now, |rights| rights.tie_firm())
    }

    /// The nodes that must hold a write before it is acknowledged.
    pub fn ack_set(&self) -> Members {
        let solo = self.register.base().members.solo() == Some(self.setup.me);
        let readding = solo && self.replica.progress != ReplicaProgress::Incomplete;
        self.with_rights(self.now, |rights| rights.ack_set(readding))
    }

    /// End of the lease of this node; 0 = none was granted since the start.
    pub fn lease_until(&self) -> BootTime {
        self.leases.until()
    }

    /// Time until which the peer may execute VMs, unless a proof says otherwise.
    pub fn granted_until(&self) -> BootTime {
        self.leases.granted_until()
    }

    /// End of the peer's fence without a proof, while this node is the only member. `None` = both are members, or only a
    /// proof ends the fence, because the peer's watchdog is not proven.
    pub fn peer_fence_until(&self) -> Option<BootTime> {
        let solo = self.register.base().members.solo() == Some(self.setup.me);
        (solo && self.peer.watchdog_proven).then(|| self.leases.granted_until())
    }

    /// Whether the peer is heard on some path in both directions.
    pub fn peer_alive(&self, now: BootTime) -> bool {
        self.peer.alive(now.max(self.now), &self.setup.timing)
    }

    /// Whether this machine believes that VMs may execute here: it was told so, and the kernel has not confirmed since that
    /// they are frozen or killed.
    pub fn vms_may_execute(&self) -> bool {
        !matches!(self.vms.state, VmState::None | VmState::Frozen)
    }

    /// Whether the hardware watchdog may be fed at `now`: the VMs may run, or the kernel confirmed that none executes.
    pub fn may_feed_watchdog(&self, now: BootTime) -> bool {
        !self.vms_may_execute() || self.may_run(now)
    }

    /// Whether the peer's watchdog is proven: from the peer's newest heartbeat, before that from
    /// [`Setup::peer_watchdog_proven`].
    pub fn peer_watchdog_proven(&self) -> bool {
        self.peer.watchdog_proven
    }

    /// The alarms in force.
    pub fn alarms(&self) -> impl Iterator<Item = Alarm> {
        self.announced.alarms.iter().copied()
    }
}
