//! Nodes and ingresses: registered, changed, lost, removed.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ballast_model::{
    Allocation, AssignmentId, Availability, EventKind, Generation, Incarnation, IngressId, Node,
    NodeDescription, NodeId, NodeStatus, Sequence, Taint, TaskState, Timestamp, Toleration,
    ZONE_LABEL, limits,
};

use super::pools::retaint;
use super::services::free_name;
use super::tasks::End;
use super::{About, Changes, INGRESSES, Ingress, Lane, NodeEntry, Rejection, RejectionKind, State};

fn no_node(node: NodeId) -> Rejection {
    Rejection::new(RejectionKind::NotFound, format!("there is no node {node}"))
}

/// Refuses what no node has: its agent is not ours, or broken.
fn check_capacity(description: &NodeDescription) -> Result<(), Rejection> {
    let capacity = &description.capacity;
    for (field, count, most) in [
        ("devices", capacity.devices.len(), limits::DEVICES_PER_NODE),
        ("custom", capacity.custom.len(), limits::CUSTOM_RESOURCES),
        ("sockets", capacity.sockets.len(), limits::SOCKETS_PER_NODE),
    ] {
        if count > most {
            let reason = format!("{count} are more than the {most} that a node may have");
            return Err(Rejection::new(RejectionKind::Limit, reason).at(field));
        }
    }
    Ok(())
}

/// What an operator changes on a node.
#[derive(Debug)]
pub(super) struct NodeChange<'a> {
    pub availability: Option<Availability>,
    pub labels: &'a BTreeMap<String, Option<String>>,
    pub taints: &'a [Taint],
    pub untaint: &'a [Toleration],
}

impl State {
    pub(super) fn register_node(
        &mut self,
        id: NodeId,
        incarnation: Incarnation,
        description: &NodeDescription,
        time: Timestamp,
        out: &mut Changes,
    ) -> Result<(), Rejection> {
        self.check_node_name(id, &description.name)?;
        check_capacity(description)?;
        let Some(entry) = self.nodes.get(&id) else {
            return self.add_node(id, incarnation, description, time, out);
        };
        if incarnation < entry.node.incarnation {
            let reason = format!("a later life of the agent on node {id} has registered");
            return Err(Rejection::new(RejectionKind::Stale, reason));
        }
        if incarnation > entry.node.incarnation {
            self.restart_sequences(id);
        }
        let entry = self.nodes.get_mut(&id).expect("found above");
        let old_name = entry.node.description.name.clone();
        let back = entry.node.status != NodeStatus::Ready;
        let moved = entry.node.description.address != description.address;
        let zone = entry.node.label(ZONE_LABEL).map(str::to_owned);
        entry.node.incarnation = incarnation;
        entry.node.description = description.clone();
        let moved = moved || entry.node.label(ZONE_LABEL) != zone.as_deref();
        entry.node.status = NodeStatus::Ready;
        if back {
            entry.node.since = time;
        }
        if self.node_names.get(&old_name) == Some(&id) {
            self.node_names.remove(&old_name);
        }
        self.node_names.insert(description.name.clone(), id);
        self.offer(id);
        // Its agent has just connected, and is to be told all.
        out.nodes.insert(id);
        out.fleet.insert(id);
        if moved {
            self.tables_on_changed(id, out);
        }
        if back {
            let about = About {
                node: Some(id),
                ..About::default()
            };
            self.note(EventKind::NodeReady, time, about, "");
        }
        Ok(())
    }

    /// Refuses a name that a living node has. One whose owner is down may be taken over: a machine
    /// that lost its data folder comes back under its name.
    fn check_node_name(&self, id: NodeId, name: &str) -> Result<(), Rejection> {
        let Some(holder) = self.node_named(name) else {
            return Ok(());
        };
        if holder.node.id == id || holder.node.status == NodeStatus::Down {
            return Ok(());
        }
        let nearest = free_name(name, |name| self.node_names.contains_key(name));
        let reason = format!("node {} is called `{name}`", holder.node.id);
        Err(Rejection::new(RejectionKind::Conflict, reason)
            .at("name")
            .nearest(Some(nearest)))
    }

    fn add_node(
        &mut self,
        id: NodeId,
        incarnation: Incarnation,
        description: &NodeDescription,
        time: Timestamp,
        out: &mut Changes,
    ) -> Result<(), Rejection> {
        if self.nodes.len() >= limits::NODES {
            let reason = format!("a cluster has at most {} nodes", limits::NODES);
            return Err(Rejection::new(RejectionKind::Limit, reason));
        }
        let node = Node {
            id,
            description: description.clone(),
            availability: Availability::Active,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            offered: description.capacity.clone(),
            status: NodeStatus::Ready,
            incarnation,
            since: time,
        };
        let entry = NodeEntry {
            node,
            allocation: Allocation::default(),
            assignments: std::collections::BTreeSet::new(),
            version: Generation(0),
        };
        self.nodes.insert(id, entry);
        self.offer(id);
        self.node_names.insert(description.name.clone(), id);
        out.nodes.insert(id);
        out.fleet.insert(id);
        let about = About {
            node: Some(id),
            ..About::default()
        };
        self.note(EventKind::NodeJoined, time, about, "");
        Ok(())
    }

    /// A new life of an agent counts its health reports from 1 again.
    fn restart_sequences(&mut self, node: NodeId) {
        for task in self.current_tasks(node) {
            if let Some(entry) = self.tasks.get_mut(&task.1) {
                entry.task.observed.sequence = Sequence(0);
            }
        }
    }

    /// Returns a node's bindings with their newest tries.
    fn current_tasks(&self, node: NodeId) -> Vec<(AssignmentId, ballast_model::TaskId)> {
        let Some(entry) = self.nodes.get(&node) else {
            return Vec::new();
        };
        entry
            .assignments
            .iter()
            .filter_map(|id| Some((*id, self.assignments.get(id)?.task)))
            .collect()
    }

    fn tables_on_changed(&self, node: NodeId, out: &mut Changes) {
        for (_, task) in self.current_tasks(node) {
            if let Some(entry) = self.tasks.get(&task) {
                self.table_changed(entry.task.service, out);
            }
        }
    }

    pub(super) fn update_node(
        &mut self,
        id: NodeId,
        change: &NodeChange<'_>,
        time: Timestamp,
        out: &mut Changes,
    ) -> Result<(), Rejection> {
        let entry = self.nodes.get_mut(&id).ok_or_else(|| no_node(id))?;
        let mut wanted = entry.node.labels.clone();
        for (key, value) in change.labels {
            match value {
                Some(value) => wanted.insert(key.clone(), value.clone()),
                None => wanted.remove(key),
            };
        }
        if wanted.len() > limits::LABELS {
            let reason = format!("a node has at most {} labels", limits::LABELS);
            return Err(Rejection::new(RejectionKind::Limit, reason).at("labels"));
        }
        let taints = retaint(&entry.node.taints, change.untaint, change.taints)?;
        let availability = change.availability.unwrap_or(entry.node.availability);
        let message = if availability != entry.node.availability {
            format!("availability is {availability} now")
        } else if taints != entry.node.taints {
            "taints changed".to_owned()
        } else if wanted != entry.node.labels {
            "labels changed".to_owned()
        } else {
            return Ok(());
        };
        let zone = entry.node.label(ZONE_LABEL).map(str::to_owned);
        entry.node.labels = wanted;
        entry.node.taints = taints;
        entry.node.availability = availability;
        let moved = entry.node.label(ZONE_LABEL) != zone.as_deref();
        out.fleet.insert(id);
        if moved {
            self.tables_on_changed(id, out);
        }
        let about = About {
            node: Some(id),
            ..About::default()
        };
        self.note(EventKind::NodeUpdated, time, about, &message);
        Ok(())
    }

    pub(super) fn set_node_status(
        &mut self,
        id: NodeId,
        status: NodeStatus,
        time: Timestamp,
        out: &mut Changes,
    ) -> Result<(), Rejection> {
        let entry = self.nodes.get_mut(&id).ok_or_else(|| no_node(id))?;
        if entry.node.status == status {
            return Ok(());
        }
        entry.node.status = status;
        entry.node.since = time;
        out.fleet.insert(id);
        let kind = match status {
            NodeStatus::Ready => EventKind::NodeReady,
            NodeStatus::Suspect => EventKind::NodeSuspect,
            NodeStatus::Down => EventKind::NodeDown,
        };
        let about = About {
            node: Some(id),
            ..About::default()
        };
        self.note(kind, time, about, "");
        if status == NodeStatus::Down {
            self.lose_tasks(id, time, out);
        }
        Ok(())
    }

    /// Ends every binding of a node that is down.
    fn lose_tasks(&mut self, node: NodeId, time: Timestamp, out: &mut Changes) {
        let name = self
            .nodes
            .get(&node)
            .map_or_else(String::new, |entry| entry.node.description.name.clone());
        let message = format!("node {name} is down");
        for (_, task) in self.current_tasks(node) {
            let ended = self.tasks[&task].task.observed.state.is_terminal();
            if !ended {
                let end = End {
                    state: TaskState::Lost,
                    message: &message,
                    time,
                };
                self.end_task(task, &end);
            }
            self.vacate(task, out);
        }
    }

    pub(super) fn remove_node(
        &mut self,
        id: NodeId,
        time: Timestamp,
        out: &mut Changes,
    ) -> Result<(), Rejection> {
        let entry = self.nodes.get(&id).ok_or_else(|| no_node(id))?;
        let name = entry.node.description.name.clone();
        if entry.node.status != NodeStatus::Down {
            let reason = format!("node {name} is {}; stop its agent first", entry.node.status);
            return Err(Rejection::new(RejectionKind::Conflict, reason));
        }
        let about = About {
            node: Some(id),
            ..About::default()
        };
        self.note(EventKind::NodeRemoved, time, about, "");
        self.nodes.remove(&id);
        if self.node_names.get(&name) == Some(&id) {
            self.node_names.remove(&name);
        }
        out.nodes.insert(id);
        out.fleet.insert(id);
        let pinned: Vec<Lane> = self
            .services
            .keys()
            .map(|&service| Lane {
                service,
                slot: ballast_model::Slot(0),
                pinned: Some(id),
            })
            .filter(|lane| self.lanes.contains_key(lane))
            .collect();
        for lane in pinned {
            self.stop_lane(lane, "its node was removed", time, out);
            self.trim_lane(lane);
        }
        Ok(())
    }

    pub(super) fn register_ingress(
        &mut self,
        id: IngressId,
        name: &str,
        feed: SocketAddr,
        out: &mut Changes,
    ) -> Result<(), Rejection> {
        if !self.ingresses.contains_key(&id) && self.ingresses.len() >= INGRESSES {
            let reason = format!("a cluster has at most {INGRESSES} ingresses");
            return Err(Rejection::new(RejectionKind::Limit, reason));
        }
        let ingress = Ingress {
            id,
            name: name.to_owned(),
            feed,
        };
        let before = self.ingresses.insert(id, ingress);
        out.ingresses |= before.is_none_or(|before| before.feed != feed);
        Ok(())
    }
}
