//! Entities and rules of the running namespace: looked at, created, changed and deleted.
//!
//! Like every command these are answered once they are durable.

use super::ServiceBus;
use crate::{
    EntityPath, Error,
    description::{Described, Description, Kind},
    rule::Rule,
};

impl ServiceBus {
    pub(crate) async fn describe(&self, entity: &EntityPath) -> Result<Described, Error> {
        let entity = entity.clone();
        self.look(move |broker, _| broker.describe(&entity)).await
    }

    /// Entities of one kind by name, up to `most` from the one in place `skip` on.
    pub(crate) async fn describe_all(
        &self,
        kind: Kind,
        skip: usize,
        most: usize,
    ) -> Result<Vec<Described>, Error> {
        self.look(move |broker, _| broker.describe_all(&kind, skip, most))
            .await
    }

    /// Creates a queue, a topic, or a subscription with its rules.
    pub(crate) async fn create(&self, description: Description) -> Result<Described, Error> {
        self.change(move |broker, now| broker.create(now, description))
            .await
    }

    /// Replaces the properties of an entity.
    pub(crate) async fn update(&self, description: Description) -> Result<Described, Error> {
        self.change(move |broker, now| broker.update(now, description))
            .await
    }

    /// Deletes a queue, a topic with its subscriptions, or a subscription, and all their messages; who waits for one is
    /// told that the entity is not there.
    pub async fn delete(&self, entity: &EntityPath) -> Result<(), Error> {
        let entity = entity.clone();
        self.change(move |broker, now| broker.delete(now, &entity))
            .await
    }

    /// The rules of a subscription, in the order in which they were added.
    pub async fn rules(&self, subscription: &EntityPath) -> Result<Vec<Rule>, Error> {
        let subscription = subscription.clone();
        self.look(move |broker, _| broker.rules(&subscription))
            .await
    }

    pub async fn add_rule(&self, subscription: &EntityPath, rule: Rule) -> Result<Rule, Error> {
        let subscription = subscription.clone();
        self.change(move |broker, now| broker.add_rule(now, &subscription, rule))
            .await
    }

    /// Replaces the filter and the action of the rule with that name.
    pub async fn update_rule(&self, subscription: &EntityPath, rule: Rule) -> Result<Rule, Error> {
        let subscription = subscription.clone();
        self.change(move |broker, now| broker.update_rule(now, &subscription, rule))
            .await
    }

    pub async fn remove_rule(&self, subscription: &EntityPath, name: &str) -> Result<(), Error> {
        let (subscription, name) = (subscription.clone(), name.to_owned());
        self.change(move |broker, now| broker.remove_rule(now, &subscription, &name))
            .await
    }
}
