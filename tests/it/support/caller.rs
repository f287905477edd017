//! Somebody who calls through RabbitMQ and waits for answers, and somebody who listens to all answers.

use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};
use serde_json::Value;

use super::App;

/// A message that came back.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) key: String,
    pub(crate) properties: BasicProperties,
    pub(crate) text: String,
    pub(crate) json: Value,
}

impl Said {
    pub(crate) fn header(&self, name: &str) -> Option<i64> {
        match self.properties.headers().as_ref()?.inner().get(name)? {
            AMQPValue::LongInt(number) => Some(i64::from(*number)),
            AMQPValue::LongLongInt(number) => Some(*number),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn correlation(&self) -> &str {
        self.properties.correlation_id().as_ref().map_or("", |id| id.as_str())
    }
}

/// A queue of its own and what arrives in it.
pub(crate) struct Caller {
    _connection: Connection,
    channel: Channel,
    consumer: Consumer,
    prefix: String,
    /// What to put into `reply_to`.
    pub(crate) queue: String,
}

impl Caller {
    /// Waits at RabbitMQ's own `amq.rabbitmq.reply-to`.
    pub(crate) async fn direct(app: &App) -> Caller {
        Caller::at(app, "amq.rabbitmq.reply-to".to_owned(), None).await
    }

    /// Waits at an exclusive queue.
    pub(crate) async fn with_queue(app: &App) -> Caller {
        Caller::at(app, String::new(), Some(FieldTable::default())).await
    }

    /// Listens to every answer that is published.
    pub(crate) async fn listening(app: &App) -> Caller {
        let caller = Caller::with_queue(app).await;
        caller.bind(&caller.queue).await;
        caller
    }

    async fn at(app: &App, name: String, declared: Option<FieldTable>) -> Caller {
        let connection =
            Connection::connect(app.setting("BROKER__URL"), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let mut queue = name;
        if let Some(arguments) = declared {
            let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
            queue = channel.queue_declare("".into(), options, arguments).await.unwrap().name().to_string();
        }
        let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
        let consuming =
            channel.basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default());
        let consumer = consuming.await.unwrap();
        Caller { _connection: connection, channel, consumer, prefix: app.prefix.clone(), queue }
    }

    async fn bind(&self, queue: &str) {
        let exchange = format!("{}.answers", self.prefix);
        let (options, none) = (QueueBindOptions::default(), FieldTable::default());
        self.channel.queue_bind(queue.into(), exchange.into(), "#".into(), options, none).await.unwrap();
    }

    /// Binds a queue to the answers that takes none: RabbitMQ refuses every publish to it.
    pub(crate) async fn bind_a_full_queue(&self) -> String {
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongInt(0));
        arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
        let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
        let queue =
            self.channel.queue_declare("".into(), options, arguments).await.unwrap().name().to_string();
        self.bind(&queue).await;
        queue
    }

    pub(crate) async fn unbind(&self, queue: &str) {
        let exchange = format!("{}.answers", self.prefix);
        let unbind =
            self.channel.queue_unbind(queue.into(), exchange.into(), "#".into(), FieldTable::default());
        unbind.await.unwrap();
    }

    /// The properties of a call that is answered here.
    pub(crate) fn asking(&self, correlation: &str) -> BasicProperties {
        BasicProperties::default()
            .with_reply_to(self.queue.as_str().into())
            .with_correlation_id(correlation.into())
    }

    /// Calls with exactly these properties.
    pub(crate) async fn send(&self, key: &str, body: &[u8], properties: BasicProperties) {
        let exchange = format!("{}.calls", self.prefix);
        let options = BasicPublishOptions::default();
        let published = self.channel.basic_publish(exchange.into(), key.into(), options, body, properties);
        published.await.unwrap();
    }

    /// The next message that arrives.
    pub(crate) async fn hear(&mut self) -> Said {
        let next = tokio::time::timeout(Duration::from_secs(20), self.consumer.next()).await;
        let delivery = next.expect("nothing is said").unwrap().unwrap();
        let text = String::from_utf8(delivery.data).unwrap();
        let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        Said { key: delivery.routing_key.to_string(), properties: delivery.properties, text, json }
    }

    /// Calls and waits for everything there is to expect, ordered by subscription.
    pub(crate) async fn call(&mut self, kind: &str, body: &[u8]) -> Vec<Said> {
        let correlation = super::unique();
        self.send(kind, body, self.asking(&correlation)).await;
        let mut said = vec![self.hear().await];
        while said.len() < usize::try_from(said[0].header("paperboy-replies").unwrap()).unwrap() {
            said.push(self.hear().await);
        }
        assert!(said.iter().all(|one| one.correlation() == correlation), "{said:?}");
        said.sort_by_key(|one| one.json["subscription"].to_string());
        said
    }
}
