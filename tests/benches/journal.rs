//! What a commit costs without the disk: messages into one queue with the acknowledgements of those before, folding included.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use motemq_tests::measured::{add_queue, batch_of, must, open_engine};
use std::hint::black_box;
use std::time::Duration;

criterion_group!(benches, commit);
criterion_main!(benches);

fn commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("commit");
    for messages in [1, 10, 100, 1000] {
        let (db, mut engine) = open_engine();
        let queue = add_queue(&db, &mut engine);
        let mut sequence = 0;
        group.throughput(Throughput::Elements(messages));
        group.bench_function(BenchmarkId::new("messages", messages), |bencher| {
            bencher.iter(|| {
                let actions = batch_of(queue, sequence, messages);
                sequence += messages;
                must(engine.commit(&db, black_box(&actions), &|| Duration::ZERO))
            });
        });
    }
    group.finish();
}
