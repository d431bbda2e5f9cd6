//! Whether the entities of a topology fit together: where messages are forwarded to.
//!
//! It runs once the whole file is read. A circle through a topic is left to the hop limit, since rules may end it.

use crate::{Topology, topology::Queue};

/// Every target exists, and nothing is forwarded in a circle that it can never leave.
pub(crate) fn check_references(topology: &Topology) -> Result<(), String> {
    let queues = topology.queues.iter().enumerate();
    for (index, queue) in queues {
        check_targets(topology, queue, &format!("Queues[{index}]"), &queue.name)?;
    }
    for (index, topic) in topology.topics.iter().enumerate() {
        for (position, subscription) in topic.subscriptions.iter().enumerate() {
            let place = format!("Topics[{index}].Subscriptions[{position}]");
            check_targets(topology, &subscription.queue, &place, &topic.name)?;
        }
    }
    for (index, queue) in topology.queues.iter().enumerate() {
        let mut at = queue;
        for _ in 0..topology.queues.len() {
            match at
                .forward_to
                .as_ref()
                .and_then(|next| find_queue(topology, next))
            {
                Some(next) if next.name == queue.name => {
                    return Err(format!(
                        "Queues[{index}].Properties.ForwardTo: it leads back to `{}`",
                        queue.name
                    ));
                }
                Some(next) => at = next,
                None => break,
            }
        }
    }
    Ok(())
}

fn find_queue<'a>(topology: &'a Topology, name: &str) -> Option<&'a Queue> {
    let name = name.to_lowercase();
    topology
        .queues
        .iter()
        .find(|queue| queue.name.to_lowercase() == name)
}

fn check_targets(
    topology: &Topology,
    queue: &Queue,
    place: &str,
    own_entity: &str,
) -> Result<(), String> {
    let targets = [
        ("ForwardTo", &queue.forward_to),
        (
            "ForwardDeadLetteredMessagesTo",
            &queue.forward_dead_lettered_messages_to,
        ),
    ];
    for (property, target) in targets {
        let Some(target) = target else { continue };
        let place = format!("{place}.Properties.{property}");
        let lower_case = target.to_lowercase();
        if lower_case == own_entity.to_lowercase() {
            return Err(format!("{place}: it leads back to `{own_entity}`"));
        }
        let exists = find_queue(topology, target).is_some()
            || topology
                .topics
                .iter()
                .any(|topic| topic.name.to_lowercase() == lower_case);
        if !exists {
            return Err(format!("{place}: there is no queue or topic `{target}`"));
        }
    }
    Ok(())
}
