//! What raft hears from the voters on other brokers and has for them.
//!
//! Whatever changes who leads comes after all that was proposed here is handed out: only so is it
//! known of an entry whether this broker proposed it.

use replication::Message;

use super::ReplicatedLog;

impl ReplicatedLog {
    /// Takes in a message of another broker.
    pub(crate) fn handle_message(&mut self, from: u64, message: Message) {
        self.act_all();
        self.driver.handle_message(from, message);
        self.act_all();
    }

    /// Has another voter, of those that can be reached, lead what this broker leads.
    pub(crate) fn hand_over(&mut self, is_there: impl Fn(u64) -> bool) {
        self.act_all();
        for state in self.groups.iter().filter(|state| state.leads.is_some()) {
            if let Some(to) = self.driver.successor(state.group, &is_there) {
                self.driver.transfer_leader(state.group, to);
            }
        }
    }

    pub(crate) fn leads_any(&self) -> bool {
        self.groups.iter().any(|state| state.leads.is_some())
    }

    /// A broker has stopped.
    pub(crate) fn handle_node_gone(&mut self, node: u64) {
        self.act_all();
        self.driver.handle_node_gone(node);
    }

    /// Messages to a broker were lost.
    pub(crate) fn report_unreachable(&mut self, to: u64) {
        self.act_all();
        self.driver.report_unreachable(to);
    }

    /// What is to be sent to other brokers, in order.
    pub(crate) fn take_outgoing(&mut self) -> Vec<(u64, Message)> {
        std::mem::take(&mut self.outgoing)
    }
}
