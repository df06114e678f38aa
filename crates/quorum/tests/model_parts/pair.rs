//! The model of a pair for the checker: its states, the possible steps, and the invariants.

use dyad_quorum::mutants::{Mutant, Mutants};
use dyad_quorum::proposer::{self, DecisionInput, FirstStep, Proposal};
use dyad_quorum::rules::NodeRights;
use dyad_quorum::{Acceptor, AcceptorRecord, Ballot, Config, Members, ReplyBody, WitnessId, acceptor};
use dyad_types::{Epoch, NodeId};
use stateright::{Model, Property};
use std::sync::LazyLock;

const NODES: [NodeId; 2] = [NodeId::A, NodeId::B];
const PAIR: u128 = 1;

/// Bounds and planted bugs.
#[derive(Clone, Debug)]
pub struct PairModel {
    /// Number of epochs after the first that are explored.
    pub epochs: u64,
    /// Highest ballot round per epoch.
    pub rounds: u64,
    pub mutants: Mutants,
    /// The witness may lose its record and keep its identity.
    pub witness_forgets: bool,
    /// No message is lost or late, no daemon restarts, and no lease is granted: all of these states can be visited.
    pub fault_free: bool,
    /// Steps taken before the search begins.
    pub prefix: &'static [Step],
}

impl Default for PairModel {
    fn default() -> PairModel {
        PairModel {
            epochs: 3,
            rounds: 3,
            mutants: Mutants::NONE,
            witness_forgets: false,
            fault_free: false,
            prefix: &[],
        }
    }
}

/// The state of one node, with the messages that it has sent and that are still under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    record: AcceptorRecord,
    up: bool,
    /// The VM executes here.
    vm_executes: bool,
    /// The node of the VM, as the replica of the document here says.
    vm_node: NodeId,
    /// This node holds a lease.
    leased: bool,
    /// The peer may hold a lease granted here.
    granted: bool,
    /// A grant is on its way to the peer.
    grant_sent: bool,
    proposal: Option<Proposal>,
    /// An abandoned proposal whose request may still reach its target.
    late_proposal: Option<Proposal>,
    /// The target's vote, which has arrived here.
    vote: Option<(Ballot, Config)>,
    /// The replica here holds every acknowledged write.
    complete: bool,
}

/// The state of the pair.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    nodes: [Node; 2],
    witness: AcceptorRecord,
    /// Chosen configurations, ordered by epoch.
    chosen: Vec<Config>,
    /// The first broken invariant.
    violation: Option<&'static str>,
}

/// The purpose of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// The proposer goes on alone.
    Remove,
    /// The solo node makes its peer a member again, with the tie at this acceptor.
    Readmit(Acceptor),
    /// The tie moves to this acceptor.
    Tie(Acceptor),
    /// A value that the proposer has accepted is decided again.
    Finish,
}

/// A step of the model; the first field is the node or acceptor that acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The node begins a proposal that asks this acceptor for its vote.
    Propose(NodeId, Change, Acceptor),
    /// The node gives its proposal up; the request may still arrive.
    Abandon(NodeId),
    /// The request of the node reaches its target. First flag: it is the one of an abandoned proposal. Second flag: the
    /// reply is lost.
    Deliver(NodeId, bool, bool),
    /// The node makes the value chosen for which the target voted.
    Conclude(NodeId),
    /// The base of the first acceptor reaches the second.
    SendBase(Acceptor, Acceptor),
    /// The node sends its peer a grant.
    SendGrant(NodeId),
    /// The peer's grant reaches the node.
    ReceiveGrant(NodeId),
    LeaseEnds(NodeId),
    /// The fence for the node's newest grant ends.
    GrantEnds(NodeId),
    /// The node starts its VM.
    Start(NodeId),
    /// The node stops its VM, which it may not run any more.
    Stop(NodeId),
    /// The document of the node places the VM on it.
    FailOver(NodeId),
    /// The node acknowledges a write of its VM.
    Acknowledge(NodeId),
    PowerOff(NodeId),
    PowerOn(NodeId),
    RestartCore(NodeId),
    WitnessForgets,
}

impl PairModel {
    fn rights<T>(&self, state: &State, node: NodeId, use_rights: impl FnOnce(&NodeRights<'_>) -> T) -> T {
        let own = &state.nodes[node.index()];
        let pending = [own.proposal.as_ref().map(Proposal::value), own.vote.as_ref().map(|(_, value)| value)];
        use_rights(&NodeRights {
            me: node,
            record: &own.record,
            pending: &pending,
            leased: own.leased,
            conflict: false,
            mutants: self.mutants,
        })
    }

    fn may_run(&self, state: &State, node: NodeId) -> bool {
        state.nodes[node.index()].up && self.rights(state, node, |rights| rights.may_run())
    }

    /// D1 and D2, as `Quorum` does them: the VM stops before the record contains `value`.
    fn stop_for(&self, state: &mut State, node: NodeId, value: &Config) {
        if self.rights(state, node, |rights| rights.must_stop(value)).is_some() {
            state.nodes[node.index()].vm_executes = false;
        }
    }

    fn learn(&self, state: &mut State, node: NodeId, base: &Config) -> bool {
        if base.rank() <= state.nodes[node.index()].record.base.rank() {
            return false;
        }
        self.stop_for(state, node, base);
        let own = &mut state.nodes[node.index()];
        own.record.adopt(base.clone());
        own.proposal = None;
        own.vote = None;
        true
    }

    fn wanted_config(&self, state: &State, node: NodeId, change: Change) -> Option<Config> {
        let own = &state.nodes[node.index()];
        let peer = &state.nodes[node.peer().index()];
        let base = &own.record.base;
        let mut want = base.clone();
        want.epoch.advance();
        match change {
            Change::Remove if base.members == Members::Both => {
                want.members = Members::only(node);
                want.tie = Acceptor::from(node);
                want.lead = node;
            }
            Change::Readmit(tie) if base.members == Members::only(node) && peer.up && peer.record.base == *base => {
                want.members = Members::Both;
                want.tie = tie;
            }
            Change::Tie(tie) if base.members == Members::Both && tie != base.tie => want.tie = tie,
            Change::Finish => want = own.record.accepted.as_ref()?.1.clone(),
            _ => return None,
        }
        Some(want)
    }

    fn propose(&self, state: &mut State, node: NodeId, change: Change, target: Acceptor) -> Option<()> {
        let want = self.wanted_config(state, node, change)?;
        let own = &state.nodes[node.index()];
        if !own.up
            || own.proposal.is_some()
            || want.epoch > Epoch(1 + self.epochs)
            || !own.record.base.members.has(node)
        {
            return None;
        }
        let input = DecisionInput {
            me: node,
            pair: PAIR,
            want,
            target,
            ballot_floor: Ballot::ZERO,
            witness_changes: 0,
            record: &own.record,
        };
        match proposer::begin_decision(input)? {
            FirstStep::DecideAlone(next) => {
                if target != Acceptor::from(node) {
                    return None;
                }
                self.stop_for(state, node, &next.base);
                if matches!(change, Change::Readmit(_)) {
                    // Precondition of a readmission: the resync is complete and both nodes acknowledge.
                    let vm_node = state.nodes[node.index()].vm_node;
                    let complete = state.nodes[node.index()].complete;
                    let peer = &mut state.nodes[node.peer().index()];
                    (peer.complete, peer.vm_node) = (complete, vm_node);
                }
                state.nodes[node.index()].record = next;
            }
            FirstStep::AskTarget(proposal, next) => {
                if next.promised.round > self.rounds {
                    return None;
                }
                let own = &mut state.nodes[node.index()];
                own.record = next;
                own.proposal = Some(*proposal);
            }
        }
        Some(())
    }

    fn deliver(&self, state: &mut State, node: NodeId, late: bool, lost: bool) -> Option<()> {
        let own = &state.nodes[node.index()];
        let proposal = if late { own.late_proposal.clone()? } else { own.proposal.clone()? };
        let body = match proposal.target.node() {
            None => {
                let body = acceptor::try_decide(&mut state.witness, Acceptor::W, &proposal.request).body;
                state.witness.witness_changes = 0;
                body
            }
            Some(target) => {
                if !state.nodes[target.index()].up {
                    return None;
                }
                self.learn(state, target, &proposal.request.base);
                let mut next = state.nodes[target.index()].record.clone();
                let body = acceptor::try_decide(&mut next, Acceptor::from(target), &proposal.request).body;
                if let ReplyBody::Accepted(_, value) = &body
                    && next != state.nodes[target.index()].record
                {
                    self.stop_for(state, target, value);
                }
                let other = &mut state.nodes[target.index()];
                if next != other.record {
                    other.record = next;
                    // A vote on the peer's proposal makes the target's own proposal void.
                    other.proposal = None;
                    other.vote = None;
                }
                body
            }
        };
        if !lost && state.nodes[node.index()].up {
            match body {
                ReplyBody::Accepted(ballot, value) if !late => {
                    state.nodes[node.index()].vote = Some((ballot, value));
                }
                ReplyBody::Newer(base) => {
                    self.learn(state, node, &base);
                }
                _ => {}
            }
        }
        Some(())
    }

    fn conclude(&self, state: &mut State, node: NodeId) -> Option<()> {
        let own = &state.nodes[node.index()];
        let (ballot, value) = own.vote.clone()?;
        let proposal = own.proposal.clone()?;
        match proposer::conclude(&own.record, &proposal, ballot, &value) {
            None => {}
            Some(next) => {
                self.stop_for(state, node, &value);
                let own = &mut state.nodes[node.index()];
                own.record = next;
                if proposal.target == Acceptor::from(node.peer()) && !value.members.has(node.peer()) {
                    own.granted = false;
                }
            }
        }
        let own = &mut state.nodes[node.index()];
        own.proposal = None;
        own.vote = None;
        Some(())
    }

    fn send_base(&self, state: &mut State, from: Acceptor, to: Acceptor) -> Option<()> {
        let base = match from.node() {
            Some(node) if !state.nodes[node.index()].up => return None,
            Some(node) => state.nodes[node.index()].record.base.clone(),
            None => state.witness.base.clone(),
        };
        match to.node() {
            Some(node) => (state.nodes[node.index()].up && self.learn(state, node, &base)).then_some(()),
            None if base.rank() > state.witness.base.rank() => {
                state.witness.adopt(base);
                Some(())
            }
            None => None,
        }
    }

    fn fail_over(&self, state: &mut State, node: NodeId) -> Option<()> {
        let own = &state.nodes[node.index()];
        let solo = own.record.base.members == Members::only(node);
        let early = self.mutants.has(Mutant::ActBeforeChosen)
            && own.proposal.as_ref().is_some_and(|proposal| proposal.value().members == Members::only(node));
        let fenced = !own.granted || self.mutants.has(Mutant::NoFenceWait);
        if !own.up || !(solo || early) || !fenced || own.vm_node == node {
            return None;
        }
        state.nodes[node.index()].vm_node = node;
        Some(())
    }

    fn acknowledge(&self, state: &mut State, node: NodeId) -> Option<()> {
        let own = &state.nodes[node.index()];
        if !own.vm_executes || !self.may_run(state, node) {
            return None;
        }
        let set = self.rights(state, node, |rights| rights.ack_set(false));
        let epoch = own.record.base.epoch;
        let peer = &mut state.nodes[node.peer().index()];
        if !set.has(node) || set.has(node.peer()) || !peer.complete {
            // No state changes: this node may not acknowledge, or the peer must hold the write too, or the peer lacks
            // writes already.
            let _ = epoch;
            return None;
        }
        peer.complete = false;
        Some(())
    }

    /// `false` for most steps that are not possible. It saves copies of the state; [`PairModel::step`] decides.
    fn enabled(&self, state: &State, step: Step) -> bool {
        let node = |id: NodeId| &state.nodes[id.index()];
        let rank = |acceptor: Acceptor| acceptor.node().map_or(&state.witness, |id| &node(id).record).base.rank();
        match step {
            Step::Propose(id, change, target) => {
                let own = node(id);
                let base = &own.record.base;
                let both = base.members == Members::Both;
                let fits = match change {
                    Change::Remove | Change::Tie(_) => both,
                    Change::Readmit(_) => !both,
                    Change::Finish => own.record.accepted.is_some(),
                };
                let alone = base.is_quorum(&[Acceptor::from(id)]);
                let ready =
                    own.up && own.proposal.is_none() && base.members.has(id) && base.epoch <= Epoch(self.epochs);
                fits && ready
                    && alone == (target == Acceptor::from(id))
                    && base.is_quorum(&[Acceptor::from(id), target])
            }
            Step::Abandon(id) => !self.fault_free && node(id).proposal.is_some(),
            Step::Deliver(_, late, lost) if self.fault_free && (late || lost) => false,
            Step::Deliver(id, late, _) => if late { &node(id).late_proposal } else { &node(id).proposal }.is_some(),
            Step::Conclude(id) => node(id).vote.is_some(),
            Step::SendBase(from, to) => rank(from) > rank(to),
            Step::SendGrant(id) => !self.fault_free && !node(id).grant_sent && node(id).up && node(id.peer()).up,
            Step::ReceiveGrant(id) => node(id.peer()).grant_sent && node(id).up,
            Step::LeaseEnds(id) => node(id).leased,
            Step::GrantEnds(id) => node(id).granted && node(id).up,
            Step::Start(id) => node(id).up && !node(id).vm_executes && node(id).vm_node == id,
            Step::Stop(id) => node(id).vm_executes,
            Step::FailOver(id) => node(id).up && node(id).vm_node != id,
            Step::Acknowledge(id) => node(id).vm_executes && node(id.peer()).complete,
            Step::PowerOff(id) | Step::RestartCore(id) => !self.fault_free && node(id).up,
            Step::PowerOn(id) => !node(id).up,
            Step::WitnessForgets => self.witness_forgets,
        }
    }

    fn step(&self, state: &mut State, step: Step) -> Option<()> {
        let grace = !self.mutants.has(Mutant::NoGrace);
        match step {
            Step::Propose(node, change, target) => self.propose(state, node, change, target),
            Step::Abandon(node) => {
                let own = &mut state.nodes[node.index()];
                own.late_proposal = Some(own.proposal.take()?);
                own.vote = None;
                Some(())
            }
            Step::Deliver(node, late, lost) => self.deliver(state, node, late, lost),
            Step::Conclude(node) => self.conclude(state, node),
            Step::SendBase(from, to) => self.send_base(state, from, to),
            Step::SendGrant(node) => {
                let theirs = state.nodes[node.peer().index()].record.base.clone();
                let both_up = state.nodes.iter().all(|node| node.up);
                let may = both_up && self.rights(state, node, |rights| rights.may_grant(&theirs));
                let own = &mut state.nodes[node.index()];
                (may && !own.grant_sent).then(|| (own.granted, own.grant_sent) = (true, true))
            }
            Step::ReceiveGrant(node) => {
                let granted = std::mem::take(&mut state.nodes[node.peer().index()].grant_sent);
                let own = &mut state.nodes[node.index()];
                (granted && own.up).then(|| own.leased = true)
            }
            Step::LeaseEnds(node) => std::mem::take(&mut state.nodes[node.index()].leased).then_some(()),
            Step::GrantEnds(node) => {
                // The fence ends later than the peer's lease, and later than the stop of a VM that ran by that lease. A
                // grant that is still under way gives no lease then.
                let peer = node.peer();
                let firm = self.rights(state, peer, |rights| rights.tie_firm());
                let theirs = &state.nodes[peer.index()];
                let over = !theirs.leased && (!theirs.vm_executes || firm);
                let own = &mut state.nodes[node.index()];
                (over && own.up && own.granted).then(|| (own.granted, own.grant_sent) = (false, false))
            }
            Step::Start(node) => {
                let may = self.may_run(state, node);
                let own = &mut state.nodes[node.index()];
                (may && !own.vm_executes && own.vm_node == node).then(|| own.vm_executes = true)
            }
            Step::Stop(node) => {
                let may = self.may_run(state, node);
                let own = &mut state.nodes[node.index()];
                (!may && own.vm_executes).then(|| own.vm_executes = false)
            }
            Step::FailOver(node) => self.fail_over(state, node),
            Step::Acknowledge(node) => self.acknowledge(state, node),
            Step::PowerOff(node) => {
                let own = &mut state.nodes[node.index()];
                own.vm_executes = false;
                std::mem::take(&mut own.up).then(|| lose_memory(own))
            }
            Step::PowerOn(node) => {
                let own = &mut state.nodes[node.index()];
                (!own.up).then(|| (own.up, own.granted) = (true, grace))
            }
            Step::RestartCore(node) => {
                let own = &mut state.nodes[node.index()];
                own.up.then(|| {
                    lose_memory(own);
                    own.granted = grace;
                })
            }
            Step::WitnessForgets => {
                if !self.witness_forgets || state.witness.base.epoch == Epoch(0) {
                    return None;
                }
                state.witness = AcceptorRecord::witness(state.witness.witness, state.witness.incarnation);
                Some(())
            }
        }
    }

    /// Drops late requests that can have no effect any more, records chosen configurations, and checks the invariants.
    fn settle(&self, state: &mut State) {
        for node in NODES {
            let target =
                state.nodes[node.index()].late_proposal.as_ref().map(|late| (late.target, late.request.base.rank()));
            if let Some((target, rank)) = target {
                let known = target.node().map_or(&state.witness, |node| &state.nodes[node.index()].record);
                if known.base.rank() > rank {
                    state.nodes[node.index()].late_proposal = None;
                }
            }
        }
        let bases: Vec<Config> =
            state.nodes.iter().map(|node| &node.record).chain([&state.witness]).map(|r| r.base.clone()).collect();
        for base in bases.into_iter().filter(Config::exists) {
            match state.chosen.iter().find(|chosen| chosen.epoch == base.epoch) {
                None => {
                    state.chosen.push(base);
                    state.chosen.sort_by_key(|chosen| chosen.epoch);
                }
                Some(chosen) if *chosen == base => {}
                Some(_) => state.violation = Some("I3/I5: two configurations of one epoch"),
            }
        }
        if state.nodes.iter().all(|node| node.vm_executes) {
            state.violation = Some("I1: the VM runs twice");
        }
        if state.nodes.iter().any(|node| node.vm_executes && !node.complete) {
            state.violation = Some("I2: the VM runs without acknowledged writes");
        }
        let newest = state.chosen.last().map_or(Members::Both, |chosen| chosen.members);
        if NODES.iter().any(|node| newest.has(*node) && !state.nodes[node.index()].complete) {
            state.violation = Some("I4: a member lacks acknowledged writes");
        }
    }
}

/// Drops the state that a daemon keeps in memory only.
fn lose_memory(node: &mut Node) {
    node.leased = false;
    node.grant_sent = false;
    node.vote = None;
    if let Some(proposal) = node.proposal.take() {
        node.late_proposal = Some(proposal);
    }
}

static STEPS: LazyLock<Vec<Step>> = LazyLock::new(steps);

fn steps() -> Vec<Step> {
    let mut steps = vec![Step::WitnessForgets];
    for node in NODES {
        let (own, peer) = (Acceptor::from(node), Acceptor::from(node.peer()));
        for target in [own, peer, Acceptor::W] {
            steps.push(Step::Propose(node, Change::Remove, target));
            steps.push(Step::Propose(node, Change::Finish, target));
            for tie in [own, peer, Acceptor::W] {
                steps.push(Step::Propose(node, Change::Tie(tie), target));
            }
        }
        steps.push(Step::Propose(node, Change::Readmit(own), own));
        steps.push(Step::Propose(node, Change::Readmit(Acceptor::W), own));
        for late in [false, true] {
            for lost in [false, true] {
                steps.push(Step::Deliver(node, late, lost));
            }
        }
        for to in [peer, Acceptor::W] {
            steps.push(Step::SendBase(own, to));
        }
        steps.push(Step::SendBase(Acceptor::W, own));
        steps.extend([
            Step::Abandon(node),
            Step::Conclude(node),
            Step::SendGrant(node),
            Step::ReceiveGrant(node),
            Step::LeaseEnds(node),
            Step::GrantEnds(node),
            Step::Start(node),
            Step::Stop(node),
            Step::FailOver(node),
            Step::Acknowledge(node),
            Step::PowerOff(node),
            Step::PowerOn(node),
            Step::RestartCore(node),
        ]);
    }
    steps
}

impl Model for PairModel {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let mut base = Config::first(NodeId::A, 1);
        base.members = Members::Both;
        base.tie = Acceptor::W;
        base.incarnations = [1, 2, 3];
        base.witness = WitnessId(9);
        let node = |incarnation| {
            let mut record = AcceptorRecord::fresh(incarnation);
            record.adopt(base.clone());
            Node {
                record,
                up: true,
                vm_executes: false,
                vm_node: NodeId::A,
                leased: false,
                granted: false,
                grant_sent: false,
                proposal: None,
                late_proposal: None,
                vote: None,
                complete: true,
            }
        };
        let mut witness = AcceptorRecord::witness(WitnessId(9), 3);
        witness.adopt(base.clone());
        let mut state = State { nodes: [node(1), node(2)], witness, chosen: vec![base.clone()], violation: None };
        for step in self.prefix {
            state = self.next_state(&state, *step).expect("the prefix is possible");
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        if state.violation.is_none() {
            actions.extend(STEPS.iter().filter(|step| self.enabled(state, **step)));
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        self.step(&mut next, step)?;
        self.settle(&mut next);
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("I1 to I5", |_, state: &State| state.violation.is_none())]
    }
}

/// Takes random walks of up to 90 steps each, `total` steps in all. Returns the first violation with the steps to it.
///
/// The random generator must stay the same: with another one, the seeds in `model.rs` might not find the planted bugs
/// within their bound.
pub fn random_walk(model: &PairModel, seed: u64, total: usize) -> Option<String> {
    let mut random = seed;
    let mut below = |bound: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((random >> 33) as usize) % bound
    };
    let mut steps = 0;
    let mut enabled = Vec::new();
    while steps < total {
        let mut state = model.init_states().remove(0);
        let mut path = Vec::new();
        for _ in 0..90 {
            enabled.clear();
            model.actions(&state, &mut enabled);
            if enabled.is_empty() {
                break;
            }
            let step = enabled[below(enabled.len())];
            steps += 1;
            // These faults are drawn rarely, because a walk with many of them reaches few epochs.
            if matches!(step, Step::PowerOff(_) | Step::RestartCore(_) | Step::WitnessForgets) && below(6) != 0 {
                continue;
            }
            let Some(next) = model.next_state(&state, step) else { continue };
            path.push(step);
            state = next;
            if let Some(violation) = state.violation {
                return Some(format!("{violation} after {} steps: {path:?}\n{state:?}", path.len()));
            }
        }
    }
    None
}
