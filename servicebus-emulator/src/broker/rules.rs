//! Rules that are listed, added, changed and removed while the namespace runs.
//!
//! Like entities ([`super::administration`]) they are changed by one command each, and what they were is in the journal.

use jiff::Timestamp;

use super::Broker;
use crate::{
    EntityPath, Error,
    entity::{EntityId, Role},
    rule::Rule,
    topology_limits,
};

/// The most SQL rules that Azure lets a subscription have.
/// <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-quotas>
const MOST_RULES: usize = 2_000;

impl Broker {
    /// The rules of a subscription, in the order in which they were added.
    pub(crate) fn rules(&self, subscription: &EntityPath) -> Result<Vec<Rule>, Error> {
        let at = self.subscription(subscription)?;
        Ok(self.rules_at(at).to_vec())
    }

    pub(crate) fn add_rule(
        &mut self,
        now: Timestamp,
        subscription: &EntityPath,
        rule: Rule,
    ) -> Result<Rule, Error> {
        self.advance(now);
        topology_limits::short_name(&rule.name).map_err(Error::NotSupported)?;
        let at = self.subscription(subscription)?;
        if position(self.rules_at(at), &rule.name).is_some() {
            return Err(Error::EntityExists(rule_path(subscription, &rule.name)));
        }
        if self.rules_at(at).len() >= MOST_RULES {
            return Err(Error::QuotaExceeded(subscription.to_string()));
        }
        let rule = Rule {
            created_at: now,
            ..rule
        };
        let added = rule.clone();
        self.change_rules(at, |rules| rules.push(rule));
        Ok(added)
    }

    /// Replaces the filter and the action of a rule.
    pub(crate) fn update_rule(
        &mut self,
        now: Timestamp,
        subscription: &EntityPath,
        rule: Rule,
    ) -> Result<Rule, Error> {
        self.advance(now);
        let at = self.subscription(subscription)?;
        let rules = self.rules_at(at);
        let index = position(rules, &rule.name)
            .ok_or_else(|| Error::EntityNotFound(rule_path(subscription, &rule.name)))?;
        let rule = Rule {
            name: rules[index].name.clone(),
            created_at: rules[index].created_at,
            ..rule
        };
        let changed = rule.clone();
        self.change_rules(at, |rules| rules[index] = rule);
        Ok(changed)
    }

    pub(crate) fn remove_rule(
        &mut self,
        now: Timestamp,
        subscription: &EntityPath,
        name: &str,
    ) -> Result<(), Error> {
        self.advance(now);
        let at = self.subscription(subscription)?;
        let index = position(self.rules_at(at), name)
            .ok_or_else(|| Error::EntityNotFound(rule_path(subscription, name)))?;
        self.change_rules(at, |rules| drop(rules.remove(index)));
        Ok(())
    }

    fn change_rules(&mut self, at: EntityId, change: impl FnOnce(&mut Vec<Rule>)) {
        self.set_up(at, |setup| {
            if let Role::Subscription { rules } = &mut setup.role {
                change(rules);
            }
        });
        self.remember_entity(at);
    }

    fn rules_at(&self, at: EntityId) -> &[Rule] {
        match &self.entities[at.0].role {
            Role::Subscription { rules } => rules,
            _ => &[],
        }
    }

    fn subscription(&self, path: &EntityPath) -> Result<EntityId, Error> {
        let at = self.find(path)?;
        if matches!(self.entities[at.0].role, Role::Subscription { .. }) {
            Ok(at)
        } else {
            Err(Error::NotSupported(format!(
                "`{path}` is not a subscription: it has no rules"
            )))
        }
    }
}

fn position(rules: &[Rule], name: &str) -> Option<usize> {
    let name = name.to_lowercase();
    rules
        .iter()
        .position(|rule| rule.name.to_lowercase() == name)
}

fn rule_path(subscription: &EntityPath, rule: &str) -> String {
    format!("{subscription}/Rules/{rule}")
}
