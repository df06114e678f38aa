//! Repair of damaged extents from the peer, for a guest's read or because the store has found the damage.
//!
//! While an extent is under repair its guest writes wait, so the peer's copy is the newest.

use crate::damage::{Damage, DamageQueue};
use crate::event::*;
use crate::guest::{TicketId, assemble};
use crate::machine::{Mirror, Phase};
use crate::message::Body;
use crate::peer::Ask;
use crate::store::Purpose;
use crate::types::*;
use std::collections::BTreeMap;
use std::ops::Range;

number! {
    /// Identifies a repair.
    pub(crate) struct HealId;
}

#[derive(Debug)]
struct Heal {
    /// The read that waits for the repair, if any.
    ticket: Option<TicketId>,
    volume: VolumeId,
    /// Mask of damaged blocks per extent. An empty mask: the extent is fetched and not written.
    damaged: BTreeMap<ExtentIndex, u16>,
    images: BTreeMap<ExtentIndex, ExtentImage>,
    /// Number of replies of the peer that are missing.
    fetching: usize,
    writing: usize,
    /// The read is answered from the images: the local copy cannot be read even after a repair.
    direct: bool,
    /// The report of the store for which the extent is repaired, if it is one.
    reported: Option<Damage>,
    /// Neither node can give the damaged blocks.
    lost: bool,
}

/// Repairs under way, and damage that the store reported.
#[derive(Debug, Default)]
pub(crate) struct Heals {
    next: HealId,
    map: BTreeMap<HealId, Heal>,
    /// Extents that the store reported as damaged and of which none is under repair.
    reported: DamageQueue,
    /// Extents for which [`Action::Lost`] was given.
    lost: BTreeMap<VolumeId, ExtentSet>,
}

impl Heals {
    /// The volume was deleted.
    pub fn forget(&mut self, volume: VolumeId) {
        self.lost.remove(&volume);
        self.reported.forget(volume);
    }
}

impl Heals {
    /// Whether a repair for this read waits for the peer's copy.
    pub fn fetches_for(&self, ticket: TicketId) -> bool {
        self.map.values().any(|heal| heal.ticket == Some(ticket) && heal.fetching > 0)
    }
}

impl Mirror {
    /// Reports that blocks of an extent are lost, unless that was reported before.
    pub(crate) fn tell_lost(&mut self, volume: VolumeId, extent: ExtentIndex, reason: LostReason) {
        let told = self.heals.lost.entry(volume).or_default();
        if !told.contains(extent) {
            told.insert(extent.run(1));
            self.out.push(Action::Lost { volume, extent, reason });
        }
    }

    /// Whether the peer's copy of these extents is as new as the local one and can be requested.
    pub(crate) fn peer_has(&self, volume: VolumeId, extents: &Range<ExtentIndex>) -> bool {
        match self.phase {
            Phase::Steady => true,
            Phase::Source => self.copier.as_ref().is_some_and(|copier| {
                let locked = self.locks.range((volume, extents.start)..(volume, extents.end)).next().is_some();
                !locked && !copier.holds_any(volume, extents) && !copier.missing.contains(&volume)
            }),
            _ => false,
        }
    }

    /// Repairs these blocks and then lets the read start again.
    pub(crate) fn heal_blocks(&mut self, ticket: TicketId, volume: VolumeId, blocks: &[BlockIndex]) {
        let mut damaged: BTreeMap<ExtentIndex, u16> = BTreeMap::new();
        for block in blocks {
            *damaged.entry(block.extent()).or_default() |= 1 << block.place_in_extent();
        }
        self.begin_heal(Some(ticket), volume, damaged, false);
    }

    /// Fetches all extents of a read and answers the read from them.
    pub(crate) fn heal_all(&mut self, ticket: TicketId, volume: VolumeId, blocks: Range<BlockIndex>) {
        let damaged = extents_of(blocks).each().map(|extent| (extent, 0)).collect();
        self.begin_heal(Some(ticket), volume, damaged, true);
    }

    fn begin_heal(
        &mut self,
        ticket: Option<TicketId>,
        volume: VolumeId,
        damaged: BTreeMap<ExtentIndex, u16>,
        direct: bool,
    ) {
        let heal = self.heals.next.advance();
        for &extent in damaged.keys() {
            self.locks.insert((volume, extent));
            let op = self.ask(Ask::HealFetch { heal, extent });
            self.send(Body::Fetch { op, volume, extent });
        }
        // The repair of a volume that the peer writes would race with the peer's writes: the peer sends the extent
        // instead.
        if self.writer(volume) == Writer::Peer {
            for (&extent, _) in damaged.iter().filter(|(_, mask)| **mask != 0) {
                self.send(Body::Want { volume, extent });
            }
        }
        let fetching = damaged.len();
        self.heals.map.insert(
            heal,
            Heal {
                ticket,
                volume,
                damaged,
                images: BTreeMap::new(),
                fetching,
                writing: 0,
                direct,
                reported: None,
                lost: false,
            },
        );
    }

    pub(crate) fn on_heal_fetched(&mut self, id: HealId, extent: ExtentIndex, image: Option<ExtentImage>) {
        let Some(heal) = self.heals.map.get_mut(&id) else {
            return;
        };
        heal.fetching -= 1;
        let answered = image.is_some();
        let image = image.unwrap_or(ExtentImage { bad: u16::MAX, ..ExtentImage::default() });
        let mask = heal.damaged.get(&extent).copied().unwrap_or(0);
        let volume = heal.volume;
        let wanted = mask & !image.bad;
        heal.images.insert(extent, image.clone());
        // A read is repeated before its blocks count as lost: a write may have made them good here meanwhile.
        let damaged_here = match heal.ticket {
            Some(ticket) if heal.direct => self.tickets.repaired_in(ticket, extent),
            Some(_) => 0,
            None => mask,
        };
        if damaged_here & image.bad != 0 {
            // A peer that could not look for its copy does not say that the blocks are lost.
            heal.lost = answered && wanted == 0;
            match answered {
                true => self.tell_lost(volume, extent, LostReason::UnreadableOnBoth),
                false => self.out.push(Action::Unreadable { volume, extent }),
            }
        }
        if wanted != 0 && self.writer(volume) != Writer::Peer {
            self.heals.map.get_mut(&id).expect("found above").writing += 1;
            let stamp = self.volumes.get(&volume).map_or(Stamp::default(), |state| state.last);
            let command =
                StoreCommand::WriteExtent { volume, stamp, extent, image, wanted, lost: 0, use_reserve: false };
            self.command(command, Purpose::HealWrite { heal: id });
            self.out.push(Action::Healed { volume, extent });
        }
        self.finish_heal(id);
    }

    pub(crate) fn on_heal_written(&mut self, id: HealId) {
        if let Some(heal) = self.heals.map.get_mut(&id) {
            heal.writing -= 1;
            self.finish_heal(id);
        }
    }

    fn finish_heal(&mut self, id: HealId) {
        let Some(heal) = self.heals.map.get(&id) else {
            return;
        };
        if heal.fetching > 0 || heal.writing > 0 {
            return;
        }
        let heal = self.heals.map.remove(&id).expect("found above");
        for &extent in heal.damaged.keys() {
            self.locks.remove(&(heal.volume, extent));
        }
        // Whether the repair had an effect is seen at the next try.
        if let Some(damage) = heal.reported
            && !heal.lost
            && heal.damaged.values().any(|mask| *mask != 0)
        {
            self.heals.reported.try_again(damage);
        }
        let Some(ticket) = heal.ticket else {
            return;
        };
        if !heal.direct {
            let in_extent = |(extent, mask): (&ExtentIndex, &u16)| {
                let (first, mask) = (extent.first_block(), *mask);
                (0..EXTENT_BLOCKS).filter(move |bit| mask & 1 << bit != 0).map(move |bit| first + bit)
            };
            self.count_repairs(ticket, heal.damaged.iter().flat_map(in_extent));
            return self.requeue_read(ticket, heal.volume);
        }
        self.read_over(heal.volume);
        let Some((block, count)) = self.tickets.map.get(&ticket).map(|t| t.op.span()) else {
            return;
        };
        let result = assemble(&heal.images, block.run(count)).map(GuestReply::Data).ok_or(GuestError::Corrupt);
        self.complete(ticket, result);
    }

    /// The session ended: reads under repair return to the queue, and damage that the store reported is repaired later.
    pub(crate) fn abort_heals(&mut self) {
        for (_, heal) in std::mem::take(&mut self.heals.map) {
            if let Some(ticket) = heal.ticket {
                self.requeue_read(ticket, heal.volume);
            }
            if let Some(damage) = heal.reported {
                self.heals.reported.try_again(damage);
            }
        }
    }

    /// A read under repair was closed.
    pub(crate) fn abandon_heals(&mut self, ticket: TicketId) {
        for heal in self.heals.map.values_mut().filter(|heal| heal.ticket == Some(ticket)) {
            heal.ticket = None;
        }
    }

    pub(crate) fn on_damaged(&mut self, volume: VolumeId, extent: ExtentIndex) {
        if self.volumes.get(&volume).is_some_and(|state| state.extents().contains(&extent)) {
            self.heals.reported.report(volume, extent);
        }
    }

    /// Begins the repairs of extents that the store reported, one at a time. Each begins with a read: the extent may have been
    /// repaired meanwhile, by an earlier try or by a write.
    pub(crate) fn pump_heals(&mut self) {
        if self.phase != Phase::Steady || !self.heals.map.is_empty() {
            return;
        }
        let locks = &self.locks;
        let next = self.heals.reported.next(self.now, |volume, extent| locks.contains(&(volume, extent)));
        let Some(damage) = next else { return };
        let (volume, extent) = (damage.volume, damage.extent);
        let heal = self.heals.next.advance();
        self.locks.insert((volume, extent));
        let entry = Heal {
            ticket: None,
            volume,
            damaged: BTreeMap::from([(extent, 0)]),
            images: BTreeMap::new(),
            fetching: 1,
            writing: 0,
            direct: false,
            reported: Some(damage),
            lost: false,
        };
        self.heals.map.insert(heal, entry);
        self.command(StoreCommand::ReadExtent { volume, extent }, Purpose::HealRead { heal });
    }

    /// An extent that the store reported was read: its damaged blocks are fetched. If the peer writes the volume, a repair of this
    /// node would race with the peer's writes: the peer sends the extent instead.
    pub(crate) fn on_heal_read(&mut self, id: HealId, result: Result<StoreOutput, StoreError>) {
        let Some(heal) = self.heals.map.get_mut(&id) else {
            return;
        };
        let bad = match result {
            Ok(StoreOutput::Extent(image)) => image.bad,
            Err(StoreError::NoVolume) => 0,
            _ => u16::MAX,
        };
        let Some((&extent, mask)) = heal.damaged.iter_mut().next() else {
            return;
        };
        *mask = bad;
        let volume = heal.volume;
        if bad != 0 && self.writer(volume) == Writer::Me {
            let op = self.ask(Ask::HealFetch { heal: id, extent });
            return self.send(Body::Fetch { op, volume, extent });
        }
        if let Some(heal) = self.heals.map.get_mut(&id) {
            heal.fetching = 0;
        }
        if bad != 0 {
            self.send(Body::Want { volume, extent });
        }
        self.finish_heal(id);
    }
}
