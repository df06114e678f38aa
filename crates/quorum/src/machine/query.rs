//! What the daemon may ask at any time.

use super::*;

impl Quorum {
    /// The newest configuration in force here, durably.
    pub fn config(&self) -> &Config {
        self.register.base()
    }

    /// The durable record.
    pub fn record(&self) -> &Record {
        self.register.record()
    }

    /// Whether VMs of this node may execute at `now`.
    pub fn may_run(&self, now: BootTime) -> bool {
        self.with_view(now, |view| view.may_run())
    }

    /// R1: whether the tie is firm here, so that no lease is needed.
    pub fn tie_firm(&self) -> bool {
        self.with_view(self.now, |view| view.tie_firm())
    }

    /// The nodes that must hold a write before it is acknowledged.
    pub fn ack_set(&self) -> Members {
        let solo = self.register.base().members.solo() == Some(self.setup.me);
        let readding = solo && self.replica.clean != Clean::No;
        self.with_view(self.now, |view| view.ack_set(readding))
    }

    /// The own lease ends at this time; 0 = none was granted since the start.
    pub fn lease_until(&self) -> BootTime {
        self.leases.until()
    }

    /// Without a proof of its death the peer may run VMs before this time.
    pub fn grant_until(&self) -> BootTime {
        self.leases.granted_until()
    }

    /// Whether the peer is heard on some path in both directions.
    pub fn peer_alive(&self, now: BootTime) -> bool {
        self.peer.alive(now.max(self.now), &self.setup.timing)
    }

    /// Whether the hardware watchdog may be fed at `now`: the VMs may run, or the kernel confirmed that none executes.
    pub fn watchdog_ok(&self, now: BootTime) -> bool {
        matches!(self.vms.state, VmState::None | VmState::Frozen) || self.may_run(now)
    }

    /// Whether the peer's watchdog is proven: as it last said itself, else as [`Setup::peer_watchdog`] said at start.
    pub fn peer_watchdog(&self) -> bool {
        self.peer.watchdog
    }

    /// The alarms in force.
    pub fn alarms(&self) -> impl Iterator<Item = Alarm> {
        self.announced.alarms.iter().copied()
    }
}
