//! What a node would give for a request, and taking it by the node's words.

use ballast_model::NodeId;

use crate::fleet::{Entry, Offer};
use crate::index::{Amounts, At, Index, PER_WORD, Remains};
use crate::policy::Query;
use crate::request::Request;

/// Returns what a node of an allowed class would give.
pub(crate) fn judge_room(
    entry: &Entry,
    request: &Request<'_>,
    query: &Query,
    avoid: &[NodeId],
) -> Option<Offer> {
    let may = !avoid.contains(&entry.node.id) && query.loose.iter().all(|c| entry.node.meets(c));
    if may {
        entry.judge_room(request).ok()
    } else {
        None
    }
}

/// Takes from a node's words what an offer claims.
pub(crate) fn take_words(index: &Index, at: At, offer: Offer) -> Option<Offer> {
    let claim = &offer.claim;
    let wanted = &claim.resources;
    let amounts = Amounts::claimed(wanted.cpu.0.into(), wanted.memory.0, wanted.disk.0);
    let line = index.line(at);
    line.take_amounts(amounts)?;
    if !claim.devices.is_empty() {
        let mut lanes = Remains::default();
        for grant in &claim.devices {
            let place = usize::from(grant.device);
            let word = &mut lanes[place / PER_WORD];
            *word = word.with(place % PER_WORD, grant.milli);
        }
        if !line.take_devices(&lanes) {
            line.give_amounts(amounts);
            return None;
        }
    }
    Some(offer)
}
