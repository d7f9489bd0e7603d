//! A broker that is absent, dies, comes back, hangs or is full: what is lost, which is nothing, and what is said.

mod support;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use holdfast_core::id::Principal;
use holdfast_core::topology::{
    Exchange, ORDERS_MAX_LENGTH, PEERS_MAX_LENGTH, USER_MAX_CONNECTIONS, orders_queue, peers_queue, routing_key,
    sentinel_queue,
};
use holdfast_edge::broker::{
    BODY_MAX, Broker, BrokerEvent, BrokerHandle, CLOSE_DEADLINE, Delivery, OUTBOX_MAX, Outgoing, PREFETCH,
    PublishError, Trouble,
};
use lapin::Channel;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use support::hostile::Hostile;
use support::rabbit::{Rabbit, parties, password};
use support::{PATIENCE, PROD, name, wait_for};
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep, timeout};

fn report(index: usize) -> Outgoing {
    let routing_key = routing_key(PROD, &name("custodian-2"), "heartbeat");
    Outgoing { exchange: Exchange::Reports, routing_key, body: index.to_string().into_bytes() }
}

fn order(body: Vec<u8>) -> Outgoing {
    Outgoing { exchange: Exchange::Orders, routing_key: routing_key(PROD, &name("alice"), "hold"), body }
}

fn one() -> Principal {
    name("custodian-1")
}

fn index_of(delivery: &Delivery) -> usize {
    let body = delivery.body.as_ref().expect("a small one");
    std::str::from_utf8(body).expect("a number").parse().expect("a number")
}

async fn up(events: &mut Receiver<BrokerEvent>) {
    wait_for(events, "a connection", |event| matches!(event, BrokerEvent::Up).then_some(())).await;
}

async fn down(events: &mut Receiver<BrokerEvent>) -> Trouble {
    wait_for(events, "the loss of the connection", |event| match event {
        BrokerEvent::Down { why } => Some(why),
        _ => None,
    })
    .await
}

/// Acknowledges deliveries until all of these have come; returns how many came more than once.
async fn receive_all(events: &mut Receiver<BrokerEvent>, expected: std::ops::Range<usize>) -> usize {
    let mut missing: BTreeSet<_> = expected.collect();
    let mut again = 0;
    while !missing.is_empty() {
        let delivery = wait_for(events, "the rest", |event| match event {
            BrokerEvent::Delivery(delivery) => Some(delivery),
            _ => None,
        })
        .await;
        if !missing.remove(&index_of(&delivery)) {
            again += 1;
        }
        delivery.ack();
    }
    again
}

async fn closed(client: BrokerHandle) {
    assert_eq!(client.close().await, 0, "messages given up");
}

/// One server, so one test: its parts take the server down under each other.
#[tokio::test]
async fn nothing_is_lost_while_the_broker_is_away() {
    let rabbit = Rabbit::start("recovery", &parties());
    rabbit.kill();

    // Absent at the start.
    let (reader, mut read) = rabbit.client("custodian-1", &[orders_queue(&one()), peers_queue(&one())]);
    let (writer, mut written) = rabbit.client("custodian-2", &[]);
    let why = down(&mut read).await;
    assert!(matches!(&why, Trouble::Unreachable { .. }), "{why}");
    (0..100).for_each(|index| writer.publish(report(index)));
    rabbit.up();
    up(&mut read).await;
    up(&mut written).await;
    receive_all(&mut read, 0..100).await;

    // Killed and started again: the reader resumes, what was handed out and not acknowledged comes again, and what was
    // published meanwhile arrives.
    writer.publish_confirmed(report(100)).await.expect("confirmed");
    let kept = wait_for(&mut read, "one to keep", |event| match event {
        BrokerEvent::Delivery(delivery) => Some(delivery),
        _ => None,
    })
    .await;
    assert_eq!((index_of(&kept), kept.redelivered), (100, false));
    rabbit.kill();
    let why = down(&mut read).await;
    assert!(matches!(&why, Trouble::Lost(_)), "{why:?}");
    kept.ack();
    (101..200).for_each(|index| writer.publish(report(index)));
    rabbit.up();
    receive_all(&mut read, 100..200).await;
    down(&mut written).await;
    up(&mut written).await;
    assert_eq!(writer.counts().pushed_out, 0);

    // Stopped in the middle: noticed by the missing confirmation, and whole again afterwards.
    let pid = rabbit.pid();
    signal("-STOP", pid);
    let since = Instant::now();
    writer.publish(report(200));
    let why = down(&mut written).await;
    assert!(matches!(&why, Trouble::Silent { .. }), "{why:?}");
    assert!(since.elapsed() < Duration::from_secs(15), "noticed after {:?}", since.elapsed());
    signal("-CONT", pid);
    receive_all(&mut read, 200..201).await;
    // It came with what was on its way when the broker stopped; our side sends it once more, to have it confirmed.
    up(&mut written).await;
    let all_confirmed = async {
        while writer.waiting() > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, all_confirmed).await.expect("all confirmed");
    closed(reader).await;
    closed(writer).await;
}

fn signal(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().expect("kill").success());
}

#[tokio::test]
async fn queues_keep_what_they_must_and_say_when_they_are_drained() {
    let rabbit = Rabbit::start("queues", &parties());
    a_backlog_is_drained_before_it_is_said(&rabbit).await;
    another_reader_delays_the_word(&rabbit).await;
    what_one_reader_gives_back_another_gets(&rabbit).await;
    a_flood_of_peers_leaves_the_orders_alone(&rabbit).await;
    a_full_orders_queue_is_reported(&rabbit).await;
    closing_sends_what_waits(&rabbit).await;
    one_user_cannot_take_all_connections(&rabbit).await;
}

async fn a_backlog_is_drained_before_it_is_said(rabbit: &Rabbit) {
    let backlog = usize::from(PREFETCH) * 5 + 3;
    let (writer, _written) = rabbit.client("custodian-2", &[]);
    for index in 0..backlog {
        writer.publish_confirmed(report(index)).await.expect("confirmed");
    }
    let (reader, mut read) = rabbit.client("custodian-1", &[orders_queue(&one()), peers_queue(&one())]);
    let (mut drained, mut seen) = (Vec::new(), 0);
    while drained.len() < 2 {
        wait_for(&mut read, "the backlog", |event| match event {
            BrokerEvent::Delivery(delivery) => {
                assert_eq!(index_of(&delivery), seen, "out of order");
                seen += 1;
                delivery.ack();
                Some(())
            }
            BrokerEvent::Drained { queue } => {
                assert!(queue != peers_queue(&one()) || seen == backlog, "drained after {seen} of {backlog}");
                drained.push(queue);
                Some(())
            }
            _ => None,
        })
        .await;
    }
    closed(reader).await;
    closed(writer).await;
}

async fn another_reader_delays_the_word(rabbit: &Rabbit) {
    // A connection of its own that was lost, which the broker still believes in, holds an order.
    let (operator, _events) = rabbit.client("alice", &[]);
    operator.publish_confirmed(order(b"0".to_vec())).await.expect("confirmed");
    let lost = Hostile::login(rabbit, "custodian-1").await;
    let holding = lost.attempt(async |channel: Channel| {
        channel.basic_qos(1, BasicQosOptions::default()).await?;
        let queue = orders_queue(&one()).into();
        let consumer = channel.basic_consume(queue, "".into(), BasicConsumeOptions::default(), FieldTable::default());
        Ok((consumer.await?, channel))
    });
    let holding = holding.await.expect("its own queue");
    while lost.count(&orders_queue(&one())).await != (0, 1) {
        tokio::task::yield_now().await;
    }
    let (reader, mut read) = rabbit.client("custodian-1", &[orders_queue(&one())]);
    up(&mut read).await;
    // The next order comes at once all the same, and nothing says that this was all.
    operator.publish_confirmed(order(b"1".to_vec())).await.expect("confirmed");
    let first = wait_for(&mut read, "the second order", |event| match event {
        BrokerEvent::Drained { .. } => panic!("said to be drained while an order is out"),
        BrokerEvent::Delivery(delivery) => Some(delivery),
        _ => None,
    })
    .await;
    assert_eq!(index_of(&first), 1);
    first.ack();
    let quiet = timeout(Duration::from_secs(1), read.recv()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    drop(holding);
    drop(lost);
    let mut came = false;
    let came_before = wait_for(&mut read, "the held order and the word", |event| match event {
        BrokerEvent::Delivery(delivery) => {
            assert_eq!(index_of(&delivery), 0);
            delivery.ack();
            came = true;
            None
        }
        BrokerEvent::Drained { .. } => Some(came),
        _ => None,
    })
    .await;
    assert!(came_before, "said to be drained before the held order came");
    closed(reader).await;
    closed(operator).await;
}

async fn what_one_reader_gives_back_another_gets(rabbit: &Rabbit) {
    let (operator, _events) = rabbit.client("alice", &[]);
    let (first, mut read) = rabbit.client("custodian-1", &[orders_queue(&one())]);
    up(&mut read).await;
    let next = async |read: &mut Receiver<BrokerEvent>| {
        wait_for(read, "the order", |event| match event {
            BrokerEvent::Delivery(delivery) => Some(delivery),
            _ => None,
        })
        .await
    };
    operator.publish_confirmed(order(b"5".to_vec())).await.expect("confirmed");
    let delivery = next(&mut read).await;
    assert!(!delivery.redelivered);
    delivery.give_back();
    let again = next(&mut read).await;
    assert!(again.redelivered && index_of(&again) == 5, "where nobody else reads, it comes again");

    let (second, mut other) = rabbit.client("custodian-1", &[orders_queue(&one())]);
    up(&mut other).await;
    let onlooker = Hostile::login(rabbit, "custodian-2").await;
    while onlooker.count(&orders_queue(&one())).await.1 < 2 {
        tokio::task::yield_now().await;
    }
    // Whose turn it is, the broker says; nobody is passed over for long.
    again.give_back();
    let mut turns = 0;
    let given = loop {
        tokio::select! {
            given = next(&mut other) => break given,
            mine = next(&mut read) => mine.give_back(),
        }
        turns += 1;
        assert!(turns < 10, "it comes to the same reader again and again");
    };
    assert_eq!(index_of(&given), 5);
    given.ack();
    closed(second).await;
    closed(first).await;
    // What the readers had in hand comes back when the broker sees them gone.
    let both_gone = async { while onlooker.count(&orders_queue(&one())).await.1 > 0 {} };
    timeout(PATIENCE, both_gone).await.expect("the readers are gone");
    assert_eq!(onlooker.count(&orders_queue(&one())).await, (0, 0), "it is dealt with");
    closed(operator).await;
}

async fn a_flood_of_peers_leaves_the_orders_alone(rabbit: &Rabbit) {
    let (operator, _events) = rabbit.client("alice", &[]);
    operator.publish_confirmed(order(b"77".to_vec())).await.expect("confirmed");
    let flood = Hostile::login(rabbit, "custodian-2").await;
    let key = routing_key(PROD, &name("custodian-2"), "heartbeat");
    let limit = usize::try_from(PEERS_MAX_LENGTH).expect("small");
    let flooded = flood.attempt(async |channel: Channel| {
        channel.confirm_select(Default::default()).await?;
        for index in 0..limit * 2 {
            let body = index.to_string();
            let (exchange, key) = ("holdfast.reports".into(), key.as_str().into());
            channel.basic_publish(exchange, key, Default::default(), body.as_bytes(), Default::default()).await?;
        }
        channel.wait_for_confirms().await
    });
    flooded.await.expect("taken");
    let (waiting, _) = flood.count(&peers_queue(&one())).await;
    assert!(u64::from(waiting) <= PEERS_MAX_LENGTH, "{waiting} wait");
    assert_eq!(flood.count(&orders_queue(&one())).await.0, 1);
    let (reader, mut read) = rabbit.client("custodian-1", &[orders_queue(&one()), peers_queue(&one())]);
    let order = wait_for(&mut read, "the order", |event| match event {
        BrokerEvent::Delivery(delivery) if delivery.exchange == "holdfast.orders" => Some(delivery),
        BrokerEvent::Delivery(delivery) => {
            delivery.ack();
            None
        }
        _ => None,
    })
    .await;
    assert_eq!(index_of(&order), 77);
    order.ack();
    wait_for(&mut read, "the last of the flood", |event| match event {
        BrokerEvent::Delivery(delivery) => {
            let last = index_of(&delivery) == limit * 2 - 1;
            delivery.ack();
            last.then_some(())
        }
        _ => None,
    })
    .await;
    closed(reader).await;
    closed(operator).await;
}

async fn a_full_orders_queue_is_reported(rabbit: &Rabbit) {
    let (operator, mut events) = rabbit.client("alice", &[]);
    up(&mut events).await;
    let mut taken = 0;
    let rejected = loop {
        match operator.publish_confirmed(order(vec![b'x'; BODY_MAX])).await {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken <= ORDERS_MAX_LENGTH, "no limit");
    };
    assert_eq!(rejected, PublishError::Rejected);
    assert!(taken > 100, "only {taken} fitted");
    assert_eq!(operator.counts().rejected, 1);
    closed(operator).await;
}

async fn closing_sends_what_waits(rabbit: &Rabbit) {
    let (client, mut events) = rabbit.client("sentinel-1", &[]);
    up(&mut events).await;
    let admin = Hostile::login(rabbit, "admin").await;
    let before = admin.count(&sentinel_queue(&name("sentinel-1"))).await.0;
    for index in 0..100 {
        let routing_key = routing_key(PROD, &name("sentinel-1"), "event");
        client.publish(Outgoing { exchange: Exchange::Events, ..Outgoing { routing_key, ..report(index) } });
    }
    let since = Instant::now();
    assert_eq!(client.close().await, 0);
    assert!(since.elapsed() < CLOSE_DEADLINE);
    assert_eq!(admin.count(&sentinel_queue(&name("sentinel-1"))).await.0, before + 100);
    let after = client.publish_confirmed(report(0)).await;
    assert_eq!(after, Err(PublishError::Closed));
}

async fn one_user_cannot_take_all_connections(rabbit: &Rabbit) {
    let mut open = Vec::new();
    let refused = loop {
        match Hostile::login_with(rabbit, "carol", &password("carol")).await {
            Ok(connection) => open.push(connection),
            Err(refused) => break refused,
        }
        assert!(open.len() as u64 <= USER_MAX_CONNECTIONS, "no limit");
    };
    assert_eq!((open.len() as u64, refused.code), (USER_MAX_CONNECTIONS, 530), "{refused:?}");
}

#[tokio::test]
async fn without_a_broker_the_buffer_stays_bounded_and_closing_is_quick() {
    let nowhere = "amqps://127.0.0.1:1/holdfast";
    let tls = support::authority::Authority::new("some CA").client();
    let (client, mut events) = Broker::spawn(support::rabbit::settings(nowhere, tls, "custodian-2", &[]));
    down(&mut events).await;
    (0..OUTBOX_MAX + 10).for_each(|index| client.publish(report(index)));
    assert_eq!((client.waiting(), client.counts().pushed_out), (OUTBOX_MAX, 10));
    let since = Instant::now();
    assert_eq!(client.close().await, OUTBOX_MAX);
    assert!(since.elapsed() < CLOSE_DEADLINE);
    while events.recv().await.is_some() {}
}
