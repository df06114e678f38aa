//! Setup: makes a blank node the first node of a new pair, or the second node of an existing one.
//!
//! **Invariants.** Before the first label is written, `unfinished.json` names the pair; it becomes the identity file in
//! the last step ([`NodeIdentity::finish_setup`]). A setup that was interrupted anywhere before is undone by
//! [`crate::erase::undo`] and leaves a blank node with blank disks. A joining node takes the last step only after the
//! first node has stored it as its peer. So whatever message is lost, either both nodes know each other, or the joining
//! one is blank and joins again with a new code.

use crate::admission::{Admission, Hello};
use crate::disks::{self, PoolDiskPaths};
use crate::enrol;
use crate::identity::{NodeIdentity, PairAndNodeName, Peer, fresh_incarnation};
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

/// Size of volume 0, which holds the document in two slots, in bytes.
pub const DOCUMENT_BYTES: u64 = 2 * slots::SLOT_BYTES as u64;

/// Time limit of all attempts to connect to the first node together.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// A callback that shows one sentence about the step that begins.
pub type ReportStep<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// Makes this node the first node of a new pair: the only member, with the tie vote. The pair is enrolled at the
/// witness before anything is written here, so that a wrong code or an unreachable witness changes nothing on this
/// node. If formatting fails after that, the witness keeps the entry of a pair that does not exist, and the next setup
/// needs a new code.
///
/// # Errors
/// A name or a disk is refused, the witness is not reached or refuses, or a disk or file cannot be written.
pub async fn create_pair(
    paths: &NodePaths,
    request: &CreatePair,
    tls: &tls::TlsIdentity,
    step: ReportStep<'_>,
) -> Result<NodeIdentity, Refusal> {
    let record = NodeRecord { name: request.node.clone(), addresses: Vec::new(), usable_memory_mib: 0, usable_cpus: 0 };
    let mut document =
        Document::new_pair(&request.pair, record, &request.admin_password_hash).map_err(|r| document_refusal(&r))?;
    check_disks(paths, &request.disks)?;
    let mut identity =
        NodeIdentity::first_node(PairAndNodeName { pair: &request.pair, node: &request.node }, &request.links);
    if let Some(at) = &request.witness {
        step("Enrolling at the witness");
        let witness = enrol::enrol_with_retries(&identity, tls, at).await?;
        document.witness = Some(witness.info());
        document.check().map_err(|r| document_refusal(&r))?;
        identity.witness = Some(witness);
    }
    begin_setup(paths, &identity)?;
    let pool = format_pool(paths, &identity, &request.disks, step)?;
    step("Writing the founding document");
    write_document(pool, &document)?;
    finish_setup(paths)?;
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
    step: ReportStep<'_>,
) -> Result<NodeIdentity, Refusal> {
    dyad_desired::names::check(&request.node).map_err(|r| document_refusal(&r))?;
    check_disks(paths, &request.disks)?;
    let offer = choose_offer(request, offers)?;
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
    let welcome = with_clean_names(*welcome);
    let identity = NodeIdentity::joined(&request.node, incarnation, &request.links, &welcome);
    begin_setup(paths, &identity)?;
    let (stop, stopped) = oneshot::channel();
    let waiting = tokio::spawn(report_progress(paired, stopped));
    // Formatting blocks this thread, which is not one of the runtime's, so the task above still runs: it tells the
    // first node that setup goes on.
    let prepared = format_pool(paths, &identity, &request.disks, step);
    drop::<oneshot::Sender<()>>(stop);
    let lost = || {
        Refusal::new(
            RefusalCode::Pairing,
            "The connection to the first node was lost: show a new pairing code there and join again.",
        )
    };
    let mut paired = waiting.await.map_err(|_| lost())?.map_err(broken)?;
    prepared?.close().map_err(|e| setup_failed("the pool", &e))?;
    step("Waiting for the first node");
    paired.send(&true).await.map_err(broken)?;
    if !paired.receive::<bool>().await.map_err(|_| lost())? {
        return Err(Refusal::new(
            RefusalCode::Pairing,
            "The first node could not write this one down; look at its status.",
        ));
    }
    finish_setup(paths)?;
    let _ = paired.close().await;
    Ok(identity)
}

/// Tells the first node every 5 s that formatting goes on, so that it does not time out; ends when the sender of
/// `stopped` is dropped.
async fn report_progress(
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

/// Connects to the first offer that answers, and repeats this until [`DIAL_TIMEOUT`]: on a link that has just come up,
/// the kernel first checks that its own address is unique, and connecting fails until then.
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

/// Removes control characters from the names of the pair and of the peer and cuts them to 64 characters, because they
/// are written to labels and shown on screens.
fn with_clean_names(welcome: crate::identity::Welcome) -> crate::identity::Welcome {
    let clean = |name: String| name.chars().filter(|c| !c.is_control()).take(64).collect();
    let peer = Peer { node: clean(welcome.peer.node), ..welcome.peer };
    crate::identity::Welcome { pair: clean(welcome.pair), peer, ..welcome }
}

/// The first offer of the pair to join. Without a chosen pair all offers must be of one pair.
fn choose_offer<'a>(
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

/// Refuses a disk that carries the label of a pair, this one or another. The typed confirmation covers all other
/// content.
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
            return Err(disk_of_pair(path, PairAndNodeName { pair, node }));
        }
    }
    Ok(())
}

/// The refusal of a disk that belongs to a pair, in the words of the wizard's `Problem::DiskOfPair`. The wizard has
/// checked the disks before, but they may have changed since.
pub fn disk_of_pair(disk: &str, PairAndNodeName { pair, node }: PairAndNodeName<'_>) -> Refusal {
    let text = format!(
        "The disk {disk} belongs to the pair \"{pair}\" (node {node}) and is never overwritten: choose another disk, or \
         erase this one first (dyad erase --disk)."
    );
    Refusal::new(RefusalCode::DiskOfPair, text)
}

/// Formats the disks as this node's pool, and creates its register; returns the open pool.
fn format_pool(
    paths: &NodePaths,
    identity: &NodeIdentity,
    wanted: &[String],
    step: ReportStep<'_>,
) -> Result<Pool, Refusal> {
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
    Pool::format(open_disks(&parts, &indexes)?, &format).map_err(|e| setup_failed("the pool", &e))?;
    let open = OpenOptions { expected: (identity.pair_number(), identity.me), durable_index: true };
    let (pool, _) = Pool::open(open_disks(&parts, &indexes)?, &open).map_err(|e| setup_failed("the pool", &e))?;
    let owner = RegisterId { pair: identity.pair_number(), node: identity.me };
    let record = match identity.peer {
        None => AcceptorRecord::first_node(identity.me, identity.incarnation),
        Some(_) => AcceptorRecord::fresh(identity.incarnation),
    };
    std::fs::create_dir_all(&paths.state).map_err(|e| setup_failed("the state directory", &e))?;
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

/// Creates volume 0, writes the first document of the pair to it and closes the pool.
fn write_document(mut pool: Pool, document: &Document) -> Result<(), Refusal> {
    let encoded = slots::encode(document).map_err(|r| document_refusal(&r))?;
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
    written.map_err(|e| setup_failed("the pool", &e))
}

fn begin_setup(paths: &NodePaths, identity: &NodeIdentity) -> Result<(), Refusal> {
    identity.begin_setup(&paths.state).map_err(|e| refusal::of_error(RefusalCode::State, &e))
}

fn finish_setup(paths: &NodePaths) -> Result<(), Refusal> {
    NodeIdentity::finish_setup(&paths.state).map_err(|e| refusal::of_error(RefusalCode::State, &e))
}

/// The refusal of setup for a refusal of the document's rules.
fn document_refusal(refusal: &dyad_desired::Refusal) -> Refusal {
    refusal.clone().into()
}

/// The refusal for an error of the part of the node that `what` names, such as the pool.
fn setup_failed(what: &str, error: &dyn std::error::Error) -> Refusal {
    Refusal::new(RefusalCode::SetupFailed, format!("Setup stopped at {what}: {error}."))
}
