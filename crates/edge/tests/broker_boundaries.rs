//! What each party may do at a real RabbitMQ, and what is refused to it.

mod support;

use std::sync::LazyLock;

use holdfast_core::topology::{Exchange, conductor_queue, orders_queue, peers_queue, routing_key, sentinel_queue};
use holdfast_edge::broker::{BODY_MAX, Broker, BrokerEvent, Outgoing, PublishError, Trouble};
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ExchangeBindOptions, ExchangeDeclareOptions,
    ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, Channel, ExchangeKind};
use support::hostile::{Hostile, Refused};
use support::rabbit::{Rabbit, parties, settings};
use support::{OTHER, PROD, name, wait_for};

static RABBIT: LazyLock<Rabbit> = LazyLock::new(|| Rabbit::start("boundaries", &parties()));

const ACCESS_REFUSED: Option<u16> = Some(403);
const PRECONDITION_FAILED: Option<u16> = Some(406);

const EXCHANGES: [&str; 4] = ["holdfast.orders", "holdfast.events", "holdfast.intents", "holdfast.reports"];

fn code<T>(result: Result<T, Refused>) -> Option<u16> {
    result.err().map(|refused| refused.code)
}

/// Every queue there is.
fn queues() -> Vec<String> {
    let custodians = ["custodian-1", "custodian-2", "custodian-3"].map(name);
    let sentinels = ["sentinel-1", "sentinel-2"].map(name);
    let mut all: Vec<_> = custodians.iter().flat_map(|id| [orders_queue(id), peers_queue(id)]).collect();
    all.extend(sentinels.iter().map(sentinel_queue));
    all.push(conductor_queue(PROD));
    all
}

#[tokio::test]
async fn a_report_reaches_peers_and_sentinel_and_no_other_cluster() {
    let report = |cluster, from: &str| Outgoing {
        exchange: Exchange::Reports,
        routing_key: routing_key(cluster, &name(from), "heartbeat"),
        body: format!("a report of {from}").into_bytes(),
    };
    let readers = [
        ("custodian-2", peers_queue(&name("custodian-2")), "custodian-1"),
        ("sentinel-1", sentinel_queue(&name("sentinel-1")), "custodian-1"),
        ("sentinel-2", sentinel_queue(&name("sentinel-2")), "custodian-3"),
    ];
    for (cluster, from) in [(PROD, "custodian-1"), (OTHER, "custodian-3")] {
        let (client, _events) = RABBIT.client(from, &[]);
        client.publish_confirmed(report(cluster, from)).await.expect("its own");
        assert_eq!(client.close().await, 0);
    }
    for (reader, queue, from) in readers {
        let expected = report(if from == "custodian-1" { PROD } else { OTHER }, from);
        let (client, mut events) = RABBIT.client(reader, std::slice::from_ref(&queue));
        let delivery = wait_for(&mut events, "the report", |event| match event {
            BrokerEvent::Delivery(delivery)
                if delivery.user_id.as_deref().is_some_and(|user| user.starts_with("custodian")) =>
            {
                // The other tests' messages come by as well.
                (delivery.body.as_ref().is_ok_and(|body| body.starts_with(b"a report of"))).then_some(delivery)
            }
            _ => None,
        })
        .await;
        assert_eq!((&delivery.body, &delivery.routing_key), (&Ok(expected.body), &expected.routing_key), "{reader}");
        assert_eq!((delivery.user_id.as_deref(), &delivery.queue), (Some(from), &queue));
        assert_eq!(delivery.exchange, "holdfast.reports");
        delivery.ack();
        client.close().await;
    }
}

#[tokio::test]
async fn each_user_reads_its_own_queues_and_no_other() {
    let two = name("custodian-2");
    let own = [
        ("custodian-1", vec![orders_queue(&name("custodian-1")), peers_queue(&name("custodian-1"))]),
        // The conductor.
        ("custodian-2", vec![orders_queue(&two), peers_queue(&two), conductor_queue(PROD)]),
        ("sentinel-1", vec![sentinel_queue(&name("sentinel-1"))]),
        ("alice", vec![]),
    ];
    for (user, own) in own {
        let client = Hostile::login(&RABBIT, user).await;
        for queue in queues() {
            let expected = if own.contains(&queue) { None } else { ACCESS_REFUSED };
            let (asked, read) = (queue.as_str(), async |channel: Channel| {
                channel
                    .basic_consume(
                        queue.as_str().into(),
                        "".into(),
                        BasicConsumeOptions::default(),
                        FieldTable::default(),
                    )
                    .await
            });
            assert_eq!(code(client.attempt(read).await.map(drop)), expected, "{user} reads {asked}");
            if expected.is_none() {
                continue;
            }
            let get = async |channel: Channel| channel.basic_get(asked.into(), BasicGetOptions::default()).await;
            assert_eq!(code(client.attempt(get).await.map(drop)), expected, "{user} gets from {asked}");
            let purge = async |channel: Channel| channel.queue_purge(asked.into(), QueuePurgeOptions::default()).await;
            assert_eq!(code(client.attempt(purge).await), expected, "{user} purges {asked}");
        }
    }
}

#[tokio::test]
async fn each_user_writes_its_own_exchange_and_no_other() {
    let own: [(&str, &[&str]); 4] = [
        ("custodian-1", &["holdfast.reports"]),
        ("custodian-2", &["holdfast.reports", "holdfast.intents"]),
        ("sentinel-1", &["holdfast.events"]),
        ("alice", &["holdfast.orders"]),
    ];
    for (user, own) in own {
        let client = Hostile::login(&RABBIT, user).await;
        let key = routing_key(PROD, &name(user), "test");
        for exchange in EXCHANGES {
            let expected = if own.contains(&exchange) { None } else { ACCESS_REFUSED };
            assert_eq!(code(client.publish(exchange, &key, b"x").await), expected, "{user} writes {exchange}");
        }
        // The default exchange would reach any queue by its name.
        for queue in queues() {
            assert_eq!(code(client.publish("", &queue, b"x").await), ACCESS_REFUSED, "{user} writes to {queue}");
        }
        for exchange in ["amq.topic", "amq.direct", "amq.fanout", "amq.headers", "amq.rabbitmq.trace"] {
            let refused = code(client.publish(exchange, &key, b"x").await);
            assert_eq!(refused, ACCESS_REFUSED, "{user} writes {exchange}");
        }
    }
}

#[tokio::test]
async fn each_user_writes_under_its_own_name_and_clusters() {
    let users = [
        ("custodian-1", "holdfast.reports", "custodian-2"),
        ("custodian-2", "holdfast.intents", "custodian-1"),
        ("sentinel-1", "holdfast.events", "sentinel-2"),
        ("alice", "holdfast.orders", "carol"),
    ];
    for (user, exchange, somebody) in users {
        let client = Hostile::login(&RABBIT, user).await;
        let (own, others) = (name(user), name(somebody));
        assert_eq!(client.publish(exchange, &routing_key(PROD, &own, "any-kind"), b"x").await, Ok(()), "{user}");
        let foreign = [
            routing_key(PROD, &others, "test"),
            routing_key(OTHER, &own, "test"),
            format!("{PROD}.{own}"),
            format!("{PROD}.{own}."),
            format!("{PROD}.{own}.test.more"),
            format!("{PROD}.{own}.Test"),
            format!("x{PROD}.{own}.test"),
            format!("{PROD}.{own}.test\nx"),
            format!("{PROD}x{own}xtest"),
            String::new(),
        ];
        for key in foreign {
            assert_eq!(code(client.publish(exchange, &key, b"x").await), ACCESS_REFUSED, "{user} under {key:?}");
        }
        let key = routing_key(PROD, &own, "test");
        let posed = client.publish_as(somebody, exchange, &key, b"x").await;
        assert_eq!(code(posed), PRECONDITION_FAILED, "{user} poses as {somebody}");
    }
}

#[tokio::test]
async fn nobody_declares_binds_or_deletes() {
    let durable = || QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    for (user, own, exchange) in [
        ("custodian-1", orders_queue(&name("custodian-1")), "holdfast.reports"),
        ("custodian-2", conductor_queue(PROD), "holdfast.intents"),
        ("sentinel-1", sentinel_queue(&name("sentinel-1")), "holdfast.events"),
        ("alice", orders_queue(&name("custodian-1")), "holdfast.orders"),
    ] {
        let client = &Hostile::login(&RABBIT, user).await;
        let (own, none) = (own.as_str(), FieldTable::default);
        let refused = [
            // An exclusive one with a name of the server's choice, one with a name of Holdfast's kind, and its own.
            code(
                client
                    .attempt(async |c: Channel| {
                        c.queue_declare(
                            "".into(),
                            QueueDeclareOptions { exclusive: true, ..Default::default() },
                            none(),
                        )
                        .await
                    })
                    .await,
            ),
            code(
                client
                    .attempt(async |c: Channel| {
                        c.queue_declare("holdfast.custodian.x.orders".into(), durable(), none()).await
                    })
                    .await,
            ),
            code(client.attempt(async |c: Channel| c.queue_declare(own.into(), durable(), none()).await).await),
            code(
                client
                    .attempt(async |c: Channel| c.queue_delete(own.into(), QueueDeleteOptions::default()).await)
                    .await,
            ),
            code(
                client
                    .attempt(async |c: Channel| {
                        c.queue_bind(
                            own.into(),
                            "holdfast.orders".into(),
                            "#".into(),
                            QueueBindOptions::default(),
                            none(),
                        )
                        .await
                    })
                    .await,
            ),
            code(
                client
                    .attempt(async |c: Channel| {
                        c.queue_bind(own.into(), exchange.into(), "#".into(), QueueBindOptions::default(), none()).await
                    })
                    .await,
            ),
            code(
                client
                    .attempt(async |c: Channel| {
                        c.queue_unbind(own.into(), "holdfast.orders".into(), format!("{PROD}.*.*").into(), none()).await
                    })
                    .await,
            ),
            code(
                client
                    .attempt(async |c: Channel| {
                        c.exchange_declare(
                            "mine".into(),
                            ExchangeKind::Topic,
                            ExchangeDeclareOptions::default(),
                            none(),
                        )
                        .await
                    })
                    .await,
            ),
            code(
                client
                    .attempt(async |c: Channel| {
                        c.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await
                    })
                    .await,
            ),
            code(
                client
                    .attempt(async |c: Channel| {
                        c.exchange_bind(
                            "holdfast.reports".into(),
                            "holdfast.orders".into(),
                            "#".into(),
                            ExchangeBindOptions::default(),
                            none(),
                        )
                        .await
                    })
                    .await,
            ),
            code(
                client
                    .attempt(async |c: Channel| {
                        c.exchange_bind(
                            exchange.into(),
                            "holdfast.orders".into(),
                            "#".into(),
                            ExchangeBindOptions::default(),
                            none(),
                        )
                        .await
                    })
                    .await,
            ),
        ];
        assert!(refused.iter().all(|code| *code == ACCESS_REFUSED), "{user}: {refused:?}");
    }
}

#[tokio::test]
async fn our_client_says_what_the_broker_refuses_and_goes_on() {
    let (client, mut events) = RABBIT.client("custodian-1", &[orders_queue(&name("custodian-2"))]);
    let message = |exchange, cluster, kind: &str| Outgoing {
        exchange,
        routing_key: routing_key(cluster, &name("custodian-1"), kind),
        body: b"x".to_vec(),
    };
    let why = wait_for(&mut events, "a refused queue", |event| match event {
        BrokerEvent::QueueRefused { why, .. } => Some(why),
        _ => None,
    })
    .await;
    assert!(why.contains("ACCESS_REFUSED"), "{why}");
    for refused in [message(Exchange::Orders, PROD, "hold"), message(Exchange::Reports, OTHER, "heartbeat")] {
        let error = client.publish_confirmed(refused.clone()).await.expect_err("not its own");
        assert!(matches!(&error, PublishError::Refused(text) if text.contains("ACCESS_REFUSED")), "{error}");
        client.publish(refused.clone());
        let told = wait_for(&mut events, "word of it", |event| match event {
            BrokerEvent::Undelivered { routing_key, .. } => Some(routing_key),
            _ => None,
        });
        assert_eq!(told.await, refused.routing_key);
    }
    client.publish_confirmed(message(Exchange::Reports, PROD, "heartbeat")).await.expect("its own");
    let counts = client.counts();
    assert_eq!((counts.refused, counts.confirmed), (4, 1));
    client.close().await;
}

#[tokio::test]
async fn a_message_that_no_queue_takes_is_reported() {
    let (client, _events) = RABBIT.client("admin", &[]);
    let lost = Outgoing { exchange: Exchange::Reports, routing_key: "nowhere.at.all".into(), body: b"x".to_vec() };
    let error = client.publish_confirmed(lost).await.expect_err("no queue");
    assert!(matches!(error, PublishError::Unroutable { .. }), "{error}");
    assert_eq!(client.counts().unroutable, 1);
    client.close().await;
}

#[tokio::test]
async fn a_message_larger_than_any_is_flagged_and_a_huge_one_never_arrives() {
    let (receiver, mut events) = RABBIT.client("custodian-3", &[orders_queue(&name("custodian-3"))]);
    let hostile = Hostile::login(&RABBIT, "carol").await;
    let key = routing_key(OTHER, &name("carol"), "hold");
    let huge = hostile.publish("holdfast.orders", &key, &vec![b'h'; 200_000]).await;
    assert_eq!(code(huge), PRECONDITION_FAILED);
    hostile.publish("holdfast.orders", &key, &vec![b'l'; BODY_MAX + 1]).await.expect("the broker takes it");
    hostile.publish("holdfast.orders", &key, &vec![b's'; BODY_MAX]).await.expect("the broker takes it");
    let mut bodies = Vec::new();
    for _ in 0..2 {
        let delivery = wait_for(&mut events, "a delivery", |event| match event {
            BrokerEvent::Delivery(delivery) => Some(delivery),
            _ => None,
        })
        .await;
        bodies.push(delivery.body.as_ref().map(Vec::len).map_err(|oversized| oversized.bytes));
        delivery.ack();
    }
    assert_eq!(bodies, [Err(BODY_MAX + 1), Ok(BODY_MAX)]);
    let error = receiver
        .publish_confirmed(Outgoing { exchange: Exchange::Reports, routing_key: key, body: vec![0; BODY_MAX + 1] })
        .await;
    assert_eq!(error, Err(PublishError::TooLarge { bytes: BODY_MAX + 1 }));
    receiver.close().await;
}

#[tokio::test]
async fn a_refused_login_says_so() {
    let down = async |settings| {
        let (client, mut events) = Broker::spawn(settings);
        let why = wait_for(&mut events, "a refusal", |event| match event {
            BrokerEvent::Down { why } => Some(why),
            _ => None,
        })
        .await;
        client.close().await;
        why
    };
    for user in ["stranger", "guest"] {
        let why = down(RABBIT.settings(user, &[])).await;
        assert!(matches!(&why, Trouble::Login { username } if username == user), "{why}");
    }
    let nowhere = RABBIT.url().replace("/holdfast", "/elsewhere");
    let why = down(settings(&nowhere, RABBIT.authority.client(), "custodian-1", &[])).await;
    assert!(matches!(&why, Trouble::Vhost { vhost, .. } if vhost == "elsewhere"), "{why}");
    assert_eq!(code(Hostile::login_with(&RABBIT, "guest", "guest").await.map(drop)), ACCESS_REFUSED);
    assert_eq!(code(Hostile::login_with(&RABBIT, "custodian-1", "").await.map(drop)), ACCESS_REFUSED);
}

/// RabbitMQ checks the key that a message is published under, and routes by the keys in its `CC` and `BCC` headers too. So
/// the keys keep order, not clusters apart; the signed body does. What arrives that way still shows who sent it and where.
#[tokio::test]
async fn a_copy_to_another_cluster_shows_its_true_sender_and_key() {
    let (reader, mut events) = RABBIT.client("custodian-3", &[peers_queue(&name("custodian-3"))]);
    let hostile = Hostile::login(&RABBIT, "custodian-1").await;
    let key = routing_key(PROD, &name("custodian-1"), "heartbeat");
    for header in ["CC", "BCC"] {
        let copy_to = LongString::from(routing_key(OTHER, &name("custodian-3"), "heartbeat"));
        let mut headers = FieldTable::default();
        headers.insert(header.into(), AMQPValue::FieldArray(vec![AMQPValue::LongString(copy_to)].into()));
        let properties = BasicProperties::default().with_headers(headers).with_user_id("custodian-1".into());
        let sent = hostile.attempt(async |channel: Channel| {
            let (exchange, options) = ("holdfast.reports".into(), BasicPublishOptions::default());
            channel.basic_publish(exchange, key.as_str().into(), options, b"a copy", properties).await?.await
        });
        sent.await.expect("RabbitMQ does not look at the header");
        let delivery = wait_for(&mut events, "the copy", |event| match event {
            BrokerEvent::Delivery(delivery) if delivery.body == Ok(b"a copy".to_vec()) => Some(delivery),
            _ => None,
        })
        .await;
        assert_eq!((delivery.user_id.as_deref(), &delivery.routing_key), (Some("custodian-1"), &key));
        delivery.ack();
    }
    reader.close().await;
}
