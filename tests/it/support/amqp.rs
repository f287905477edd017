//! RabbitMQ seen from outside: publishing as a producer would, counting, breaking.

use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions, ConfirmSelectOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};

pub(crate) struct Amqp {
    connection: Connection,
    channel: Channel,
    prefix: String,
}

impl Amqp {
    pub(crate) async fn connect(url: &str, prefix: &str) -> Amqp {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Amqp { connection, channel, prefix: prefix.to_owned() }
    }

    /// Publishes an event as a producer does; it must be confirmed, and routed to a queue.
    pub(crate) async fn publish(&self, key: &str, body: &[u8], properties: BasicProperties) {
        assert!(self.try_publish(key, body, properties).await, "the event came back: nothing is bound");
    }

    /// Publishes an event and waits for the confirm; false when it came back as unroutable.
    pub(crate) async fn try_publish(&self, key: &str, body: &[u8], properties: BasicProperties) -> bool {
        let exchange = format!("{}.events", self.prefix);
        self.publish_through(&exchange, key, body, properties.with_delivery_mode(2)).await
    }

    /// Publishes with exactly these properties, persistent or not.
    pub(crate) async fn publish_as_is(&self, key: &str, body: &[u8], properties: BasicProperties) {
        let exchange = format!("{}.events", self.prefix);
        assert!(self.publish_through(&exchange, key, body, properties).await, "the event came back");
    }

    /// Publishes past the exchange, as nobody should, to a queue of this app such as `retries`.
    pub(crate) async fn publish_to_queue(&self, queue: &str, body: &[u8], properties: BasicProperties) {
        let queue = format!("{}.{queue}", self.prefix);
        assert!(self.publish_through("", &queue, body, properties).await, "there is no queue `{queue}`");
    }

    async fn publish_through(
        &self,
        exchange: &str,
        key: &str,
        body: &[u8],
        properties: BasicProperties,
    ) -> bool {
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let publish = self.channel.basic_publish(exchange.into(), key.into(), options, body, properties);
        let confirm = publish.await.unwrap().await.unwrap();
        assert!(confirm.is_ack(), "{confirm:?}");
        confirm.take_message().is_none()
    }

    /// Takes the way from the exchange to the queue away.
    pub(crate) async fn unbind_events(&self) {
        let name = format!("{}.events", self.prefix);
        let unbind = self.channel.queue_unbind(
            name.as_str().into(),
            name.as_str().into(),
            "#".into(),
            FieldTable::default(),
        );
        unbind.await.unwrap();
    }

    /// Looks at a message of a queue of this app and puts it back.
    #[expect(clippy::disallowed_methods, reason = "one look into a queue that nobody takes from")]
    pub(crate) async fn peek(&self, queue: &str) -> Option<BasicProperties> {
        let name = format!("{}.{queue}", self.prefix);
        let got = self.channel.basic_get(name.into(), BasicGetOptions::default()).await.unwrap()?;
        got.nack(BasicNackOptions { requeue: true, ..Default::default() }).await.unwrap();
        Some(got.delivery.properties)
    }

    /// Looks at this many messages of a queue that nobody takes from, and puts them back.
    pub(crate) async fn peek_all(&self, queue: &str, count: usize) -> Vec<(BasicProperties, Vec<u8>)> {
        let channel = self.connection.create_channel().await.unwrap();
        let name = format!("{}.{queue}", self.prefix);
        let options = BasicConsumeOptions::default();
        let mut consumer =
            channel.basic_consume(name.into(), "".into(), options, FieldTable::default()).await.unwrap();
        let mut seen = Vec::new();
        while seen.len() < count {
            let next = tokio::time::timeout(Duration::from_secs(10), consumer.next()).await;
            let next = next.unwrap_or_else(|_| panic!("{} of {count} messages in `{queue}`", seen.len()));
            let delivery = next.unwrap().unwrap();
            seen.push((delivery.properties, delivery.data));
        }
        channel.close(200, "looked".into()).await.unwrap();
        seen
    }

    /// Takes one message of a queue and gives it back, as a worker that crashes over it would, until it was
    /// given back `times` times or the broker hands it out no more; how often it was.
    pub(crate) async fn give_back(&self, queue: &str, times: usize) -> usize {
        let channel = self.connection.create_channel().await.unwrap();
        let name = format!("{}.{queue}", self.prefix);
        let options = BasicConsumeOptions::default();
        let mut consumer =
            channel.basic_consume(name.into(), "".into(), options, FieldTable::default()).await.unwrap();
        for given_back in 0..times {
            let next = tokio::time::timeout(Duration::from_secs(5), consumer.next()).await;
            let Ok(Some(delivery)) = next else { return given_back };
            let again = BasicNackOptions { requeue: true, ..Default::default() };
            channel.basic_nack(delivery.unwrap().delivery_tag, again).await.unwrap();
        }
        channel.close(200, "gave back".into()).await.unwrap();
        times
    }

    /// Publishes many events with confirms read at the end.
    pub(crate) async fn publish_all(&self, events: impl IntoIterator<Item = (String, Vec<u8>)>) {
        let mut confirms = Vec::new();
        for (key, body) in events {
            let confirm = self
                .channel
                .basic_publish(
                    format!("{}.events", self.prefix).into(),
                    key.into(),
                    BasicPublishOptions { mandatory: true, ..Default::default() },
                    &body,
                    BasicProperties::default().with_delivery_mode(2),
                )
                .await
                .unwrap();
            confirms.push(confirm);
            if confirms.len() >= 500 {
                for confirm in confirms.drain(..) {
                    assert!(confirm.await.unwrap().is_ack());
                }
            }
        }
        for confirm in confirms {
            assert!(confirm.await.unwrap().is_ack());
        }
    }

    /// Messages ready in a queue of this app, such as `retries`; none when it does not exist.
    pub(crate) async fn ready(&self, queue: &str) -> Option<u32> {
        Some(self.depth(queue).await?.0)
    }

    /// Who takes from a queue of this app.
    pub(crate) async fn consumers(&self, queue: &str) -> Option<u32> {
        Some(self.depth(queue).await?.1)
    }

    async fn depth(&self, queue: &str) -> Option<(u32, u32)> {
        let channel = self.connection.create_channel().await.unwrap();
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let name = format!("{}.{queue}", self.prefix);
        let declared = channel.queue_declare(name.into(), options, FieldTable::default()).await;
        let count = declared.ok().map(|queue| (queue.message_count(), queue.consumer_count()));
        if count.is_some() {
            let _ = channel.close(200, "looked".into()).await;
        }
        count
    }

    /// Binds a queue of the test's own to an exchange of this app such as `notices`, for everything.
    pub(crate) async fn listen_to(&self, exchange: &str) -> String {
        let queue = format!("heard.{exchange}");
        let (name, exchange) = (format!("{}.{queue}", self.prefix), format!("{}.{exchange}", self.prefix));
        let options = QueueDeclareOptions { auto_delete: true, ..Default::default() };
        let none = FieldTable::default;
        self.channel.queue_declare(name.as_str().into(), options, none()).await.unwrap();
        let bind =
            self.channel.queue_bind(name.into(), exchange.into(), "#".into(), Default::default(), none());
        bind.await.unwrap();
        queue
    }

    pub(crate) async fn delete_queue(&self, queue: &str) {
        let name = format!("{}.{queue}", self.prefix);
        self.channel.queue_delete(name.into(), QueueDeleteOptions::default()).await.unwrap();
    }

    /// Declares a queue with arguments that are not paperboy's.
    pub(crate) async fn declare_odd_queue(&self, queue: &str) {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(12_345));
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        let name = format!("{}.{queue}", self.prefix);
        self.channel.queue_declare(name.into(), options, arguments).await.unwrap();
    }
}

/// Deletes everything under a prefix; what is not there is no fault to RabbitMQ.
pub(crate) async fn remove_topology(url: &str, prefix: &str, unit_ms: &str) -> lapin::Result<()> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let queues =
        ["events", "deliveries", "retries", "calls", "dead.deliveries", "dead.events"].map(str::to_owned);
    let levels = (0..17).map(|level| format!("delay.{unit_ms}ms.{level:02}"));
    for queue in queues.into_iter().chain(levels) {
        channel.queue_delete(format!("{prefix}.{queue}").into(), QueueDeleteOptions::default()).await?;
    }
    for exchange in ["events", "calls", "answers", "notices"] {
        channel.exchange_delete(format!("{prefix}.{exchange}").into(), Default::default()).await?;
    }
    connection.close(200, "removed".into()).await
}
