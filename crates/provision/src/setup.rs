//! Makes a blank node a member: as the first node of a new pair, or as the second node of one.
//!
//! **Invariants.** Before the first label is written, `unfinished.json` names the pair; it becomes the identity file in
//! the last step ([`NodeIdentity::finish`]). A setup that was interrupted anywhere before is undone by
//! [`crate::erase::undo`] and leaves a blank node, whose disks need no confirmation beyond the one already given. A
//! joining node takes the last step only after the first node has written it down: whatever message is lost, either both
//! know of each other, or the joining one is blank and joins again with a new code.

use crate::admission::{Admission, Hello};
use crate::disks::{self, PoolDiskPaths};
use crate::enrol;
use crate::identity::{NodeIdentity, PairNames, Peer, fresh_incarnation};
use crate::paths::NodePaths;
use crate::refusal;
use crate::register::RegisterFiles;
use dyad_control::{CreatePair, DiskContent, Join, Refusal, RefusalCode};
use dyad_desired::{Document, NodeRecord, slots};
use dyad_link::pairing::{self as link_pairing, Purpose};
use dyad_link::{discovery, tls};
use dyad_pool::{FormatOptions, OpenOptions, Overwrite, Pool, PoolDisk};
use dyad_quorum::{AcceptorRecord, slots::RegisterId};
use dyad_types::{BLOCK, BlockIndex, Epoch, Seq, Stamp, VolumeId};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// Size of volume 0, which holds the document, in bytes: two slots.
pub const DOCUMENT_BYTES: u64 = 2 * slots::SLOT as u64;

/// Longest time that connecting to the first node is tried.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Shows one sentence about the step that begins.
pub type Step<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// Makes this node the first node of a new pair: the only member, holding the tie. The pair is enrolled at the witness before
/// anything is written, so that a wrong code or an unreachable witness changes nothing. If formatting fails after that, the
/// witness keeps the record of a pair without nodes, and the next setup needs a new code.
///
/// # Errors
/// A name or a disk is refused, the witness is not reached or refuses, or a disk or file cannot be written.
pub async fn create_pair(
    paths: &NodePaths,
    request: &CreatePair,
    tls: &tls::TlsIdentity,
    step: Step<'_>,
) -> Result<NodeIdentity, Refusal> {
    let record = NodeRecord { name: request.node.clone(), addresses: Vec::new(), usable_memory_mib: 0, usable_cpus: 0 };
    let mut document =
        Document::new_pair(&request.pair, record, &request.admin_password_hash).map_err(|r| contradicts(&r))?;
    check_disks(paths, &request.disks)?;
    let mut identity = NodeIdentity::first_node(PairNames { pair: &request.pair, node: &request.node }, &request.links);
    if let Some(at) = &request.witness {
        step("Enrolling at the witness");
        let witness = enrol::enrol_with_retries(&identity, tls, at).await?;
        document.witness = Some(witness.info());
        document.check().map_err(|r| contradicts(&r))?;
        identity.witness = Some(witness);
    }
    begin(paths, &identity)?;
    let pool = prepare(paths, &identity, &request.disks, step)?;
    step("Writing the founding document");
    write_document(pool, &document)?;
    finish(paths)?;
    Ok(identity)
}

/// Makes this node the second node of the pair whose first node shows `request.code`.
///
/// # Errors
/// A name or a disk is refused, the first node is not heard, does not answer or refuses, or a disk or file cannot be
/// written.
pub async fn join(
    paths: &NodePaths,
    request: &Join,
    offers: &[discovery::DiscoveredOffer],
    tls: &tls::TlsIdentity,
    step: Step<'_>,
) -> Result<NodeIdentity, Refusal> {
    dyad_desired::names::check(&request.node).map_err(|r| contradicts(&r))?;
    check_disks(paths, &request.disks)?;
    let offer = choose(request, offers)?;
    step("Pairing with the first node");
    let same_pair: Vec<_> = offers.iter().filter(|found| found.offer.pair == offer.offer.pair).collect();
    let Some(stream) = dial(&same_pair).await else {
        let text = format!("The first node {} does not answer; check the cable and try again.", offer.offer.node_name);
        return Err(Refusal::new(RefusalCode::NoAnswer, text));
    };
    let broken = |e: link_pairing::PairingError| refusal::of_pairing(&e, Purpose::Node);
    let mut paired = link_pairing::join(stream, tls, &request.code, Purpose::Node).await.map_err(broken)?;
    let incarnation = fresh_incarnation();
    paired.send(&Hello { node: request.node.clone(), incarnation }).await.map_err(broken)?;
    let welcome = match paired.receive().await.map_err(broken)? {
        Admission::Welcome(welcome) => welcome,
        Admission::Refused(sentence) => return Err(Refusal::new(RefusalCode::NameExists, sentence)),
    };
    if welcome.peer.fingerprint != paired.peer().to_string() {
        return Err(Refusal::new(RefusalCode::Pairing, "The first node names another key than it uses; pair again."));
    }
    let welcome = cleaned(*welcome);
    let identity = NodeIdentity::joined(&request.node, incarnation, &request.links, &welcome);
    begin(paths, &identity)?;
    let (stop, stopped) = oneshot::channel();
    let waiting = tokio::spawn(keep_waiting(paired, stopped));
    // This thread is not one of the runtime's: the first node is told meanwhile that it goes on.
    let prepared = prepare(paths, &identity, &request.disks, step);
    drop::<oneshot::Sender<()>>(stop);
    let lost = || {
        Refusal::new(
            RefusalCode::Pairing,
            "The connection to the first node was lost: show a new pairing code there and join again.",
        )
    };
    let mut paired = waiting.await.map_err(|_| lost())?.map_err(broken)?;
    prepared?.close().map_err(|e| failed("the pool", &e))?;
    step("Waiting for the first node");
    paired.send(&true).await.map_err(broken)?;
    if !paired.receive::<bool>().await.map_err(|_| lost())? {
        return Err(Refusal::new(
            RefusalCode::Pairing,
            "The first node could not write this one down; look at its status.",
        ));
    }
    finish(paths)?;
    let _ = paired.close().await;
    Ok(identity)
}

/// Tells the first node now and then that formatting goes on, until `stopped`.
async fn keep_waiting(
    mut paired: link_pairing::Paired,
    mut stopped: oneshot::Receiver<()>,
) -> Result<link_pairing::Paired, link_pairing::PairingError> {
    let mut ticks = tokio::time::interval(link_pairing::STEP_TIMEOUT / 4);
    loop {
        tokio::select! {
            _ = &mut stopped => return Ok(paired),
            _ = ticks.tick() => paired.send(&false).await?,
        }
    }
}

/// Connects on the first link that works. A link that has just come up refuses for a moment, until its own address is
/// known to be unique on the link.
async fn dial(offers: &[&discovery::DiscoveredOffer]) -> Option<TcpStream> {
    let attempts = async {
        loop {
            for found in offers {
                let attempt = tokio::time::timeout(Duration::from_secs(2), TcpStream::connect(found.address));
                if let Ok(Ok(stream)) = attempt.await {
                    return stream;
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(DIAL_TIMEOUT, attempts).await.ok()
}

/// Nothing of what came over the wire is trusted beyond its type: names are checked before they reach a label.
fn cleaned(welcome: crate::identity::Welcome) -> crate::identity::Welcome {
    let clean = |name: String| name.chars().filter(|c| !c.is_control()).take(64).collect();
    let peer = Peer { node: clean(welcome.peer.node), ..welcome.peer };
    crate::identity::Welcome { pair: clean(welcome.pair), peer, ..welcome }
}

fn choose<'a>(
    request: &Join,
    offers: &'a [discovery::DiscoveredOffer],
) -> Result<&'a discovery::DiscoveredOffer, Refusal> {
    let wanted = |found: &&discovery::DiscoveredOffer| match &request.pair_id {
        Some(id) => *id == found.offer.pair.to_string(),
        None => true,
    };
    let mut fitting = offers.iter().filter(wanted);
    let first = fitting.next().ok_or_else(|| {
        let text = "No first node is heard: open the pairing code there and check the cables between the nodes.";
        Refusal::new(RefusalCode::NoOffer, text)
    })?;
    if fitting.any(|other| other.offer.pair != first.offer.pair) {
        return Err(Refusal::new(RefusalCode::SeveralOffers, "Several pairs are heard; choose the one to join."));
    }
    Ok(first)
}

/// Disks of another pair are refused by name; the confirmation covers everything else.
fn check_disks(paths: &NodePaths, wanted: &[String]) -> Result<(), Refusal> {
    if wanted.is_empty() {
        return Err(Refusal::new(RefusalCode::NoDisk, "Choose at least one disk for the pool."));
    }
    let found = disks::list(&paths.disks, &paths.run);
    for path in wanted {
        let Some(disk) = found.iter().find(|disk| disk.path == *path) else {
            return Err(Refusal::new(RefusalCode::UnknownDisk, format!("There is no disk {path} that could be used.")));
        };
        if let DiskContent::Pool { pair, node, .. } = &disk.content {
            return Err(disk_of_pair(path, PairNames { pair, node }));
        }
    }
    Ok(())
}

/// The wizard's sentence and word: it is asked first, and the disks may have changed since.
pub fn disk_of_pair(disk: &str, PairNames { pair, node }: PairNames<'_>) -> Refusal {
    let text = format!(
        "The disk {disk} belongs to the pair \"{pair}\" (node {node}) and is never overwritten: choose another disk, or \
         erase this one first (dyad erase --disk)."
    );
    Refusal::new(RefusalCode::DiskOfPair, text)
}

fn prepare(paths: &NodePaths, identity: &NodeIdentity, wanted: &[String], step: Step<'_>) -> Result<Pool, Refusal> {
    let mut parts: Vec<PoolDiskPaths> = Vec::new();
    for path in wanted {
        step(&format!("Formatting {path}"));
        parts.push(disks::prepare(Path::new(path), paths).map_err(|e| refusal::of_error(RefusalCode::Format, &e))?);
    }
    let format = FormatOptions {
        identity: dyad_pool::PoolIdentity {
            pool: identity.pair_number(),
            node: identity.me,
            pair_name: identity.pair.clone(),
            node_name: identity.node.clone(),
        },
        disk_ids: parts.iter().map(|_| rand::random()).collect(),
        salt: rand::random(),
        journal_bytes: None,
        overwrite: Overwrite::Anything,
        durable_index: true,
    };
    let indexes = mount_indexes(paths, &parts)?;
    Pool::format(open_disks(&parts, &indexes)?, &format).map_err(|e| failed("the pool", &e))?;
    let open = OpenOptions { expected: (identity.pair_number(), identity.me), durable_index: true };
    let (pool, _) = Pool::open(open_disks(&parts, &indexes)?, &open).map_err(|e| failed("the pool", &e))?;
    let owner = RegisterId { pair: identity.pair_number(), node: identity.me };
    let record = match identity.peer {
        None => AcceptorRecord::first_node(identity.me, identity.incarnation),
        Some(_) => AcceptorRecord::fresh(identity.incarnation),
    };
    std::fs::create_dir_all(&paths.state).map_err(|e| failed("the state directory", &e))?;
    RegisterFiles::create([&paths.state, &indexes[0]], owner, &record)
        .map_err(|e| refusal::of_error(RefusalCode::Register, &e))?;
    Ok(pool)
}

fn mount_indexes(paths: &NodePaths, parts: &[PoolDiskPaths]) -> Result<Vec<PathBuf>, Refusal> {
    let mount = |part: &PoolDiskPaths| part.index.mount(paths);
    parts.iter().map(mount).collect::<Result<_, _>>().map_err(|e| refusal::of_error(RefusalCode::Index, &e))
}

fn open_disks(parts: &[PoolDiskPaths], indexes: &[PathBuf]) -> Result<Vec<PoolDisk>, Refusal> {
    disks::open(parts, indexes).map_err(|e| refusal::of_error(RefusalCode::Disk, &e))
}

/// Volume 0 with the founding document in it.
fn write_document(mut pool: Pool, document: &Document) -> Result<(), Refusal> {
    let encoded = slots::encode(document).map_err(|r| contradicts(&r))?;
    let written = pool
        .create_volume(VolumeId::DOCUMENT, DOCUMENT_BYTES / BLOCK as u64)
        .and_then(|_| {
            pool.write(
                VolumeId::DOCUMENT,
                Stamp { epoch: Epoch(1), seq: Seq(1) },
                BlockIndex(encoded.offset / BLOCK as u64),
                encoded.bytes.into(),
            )
        })
        .and_then(|_| pool.close());
    written.map_err(|e| failed("the pool", &e))
}

fn begin(paths: &NodePaths, identity: &NodeIdentity) -> Result<(), Refusal> {
    identity.begin(&paths.state).map_err(|e| refusal::of_error(RefusalCode::State, &e))
}

fn finish(paths: &NodePaths) -> Result<(), Refusal> {
    NodeIdentity::finish(&paths.state).map_err(|e| refusal::of_error(RefusalCode::State, &e))
}

/// A rule of the document says no.
fn contradicts(refusal: &dyad_desired::Refusal) -> Refusal {
    refusal.clone().into()
}

fn failed(what: &str, error: &dyn std::error::Error) -> Refusal {
    Refusal::new(RefusalCode::SetupFailed, format!("Setup stopped at {what}: {error}."))
}
