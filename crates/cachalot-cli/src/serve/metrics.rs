//! What is counted, as Prometheus reads it.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::ctl::protocol::{GatewayStats, RequestStats, VolumeStats, numbers};

/// The kind of text that [`text`] gives.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The histograms' bounds are powers of two of a microsecond, up to this one.
const BOUNDS: u32 = 28;

/// What a server counted, with each volume's name as a label.
pub(super) fn text(stats: GatewayStats) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("cachalot");
    registry.register_collector(Box::new(Snapshot(stats)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// A look at a server.
#[derive(Debug)]
struct Snapshot(GatewayStats);

/// No exemplars are kept.
type Exemplars = [(&'static str, &'static str); 0];

impl Snapshot {
    /// One number of each volume under each of the names.
    fn by_volume(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        kind: MetricType,
        of: impl Fn(&VolumeStats) -> Vec<(String, u64)>,
    ) -> fmt::Result {
        let volumes: Vec<_> = self
            .0
            .volumes
            .iter()
            .map(|volume| (volume, of(volume)))
            .collect();
        let names = volumes.first().map_or(0, |(_, numbers)| numbers.len());
        for index in 0..names {
            let mut lines = volumes
                .iter()
                .filter_map(|(volume, numbers)| Some((volume, numbers.get(index)?)))
                .peekable();
            let Some((_, (name, _))) = lines.peek() else {
                continue;
            };
            let help = name.replace('_', " ");
            let mut metric = encoder.encode_descriptor(name, &help, None, kind)?;
            for (volume, (_, number)) in lines {
                let labels = [("volume", volume.volume.as_str())];
                let mut line = metric.encode_family(&labels)?;
                if matches!(kind, MetricType::Counter) {
                    line.encode_counter::<Exemplars, u64, f64>(number, None)?;
                } else {
                    line.encode_gauge(number)?;
                }
            }
        }
        Ok(())
    }

    /// One line for each volume and kind of request.
    fn by_request(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help, kind): (&str, &str, MetricType),
    ) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
        for volume in &self.0.volumes {
            for (request, stats) in &volume.requests {
                let labels = [("volume", volume.volume.as_str()), ("request", request)];
                let mut line = metric.encode_family(&labels)?;
                if matches!(kind, MetricType::Histogram) {
                    let seconds = stats.total_nanos as f64 / 1e9;
                    line.encode_histogram::<Exemplars>(seconds, stats.done, &buckets(stats), None)?;
                } else if matches!(kind, MetricType::Counter) {
                    line.encode_counter::<Exemplars, u64, f64>(&stats.failed, None)?;
                } else {
                    line.encode_gauge(&stats.under_way)?;
                }
            }
        }
        Ok(())
    }
}

/// The buckets that Prometheus gets: as many as doublings, in seconds, and one for what is above.
fn buckets(stats: &RequestStats) -> Vec<(f64, u64)> {
    let mut bounds: Vec<(f64, u64)> = Vec::new();
    let mut left = stats.buckets.iter().peekable();
    for doubling in 0..=BOUNDS {
        let bound = 1_u64 << doubling;
        let mut count = 0;
        while let Some((_, more)) = left.next_if(|(upper, _)| *upper <= bound) {
            count += more;
        }
        bounds.push((bound as f64 / 1e6, count));
    }
    bounds.push((f64::INFINITY, left.map(|(_, count)| count).sum()));
    bounds
}

fn one(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    value: &impl EncodeGaugeValue,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    metric.encode_gauge(value)
}

impl Snapshot {
    fn requests(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for about in [
            (
                "request_seconds",
                "how long requests of clients take",
                MetricType::Histogram,
            ),
            (
                "requests_failed",
                "requests of clients that failed",
                MetricType::Counter,
            ),
            (
                "requests_under_way",
                "requests of clients without an answer yet",
                MetricType::Gauge,
            ),
        ] {
            self.by_request(out, about)?;
        }
        Ok(())
    }

    fn modes(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "1 for how a volume takes writes";
        let mut modes = out.encode_descriptor("mode", help, None, MetricType::Gauge)?;
        for volume in &self.0.volumes {
            let labels = [
                ("volume", volume.volume.as_str()),
                ("mode", volume.mode.name()),
            ];
            modes.encode_family(&labels)?.encode_gauge(&1_u64)?;
        }
        Ok(())
    }

    fn limits(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "the limits of the cache";
        let mut limits = out.encode_descriptor("limit", help, None, MetricType::Gauge)?;
        for (name, limit) in numbers(&self.0.limits) {
            let labels = [("limit", name.as_str())];
            limits.encode_family(&labels)?.encode_gauge(&limit)?;
        }
        Ok(())
    }

    fn cache(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let cache = &self.0.cache;
        for (name, value) in [
            (
                ("room_taken_bytes", "what the cached data costs the limit"),
                cache.charged.room.unsigned_abs(),
            ),
            (
                (
                    "dirty_taken_bytes",
                    "dirty and in flight, as the limit counts",
                ),
                cache.charged.dirty.unsigned_abs(),
            ),
            (
                ("objects", "objects of which something is known"),
                cache.objects,
            ),
            (
                ("waiting_claims", "requests that wait for room"),
                cache.waiting_claims as u64,
            ),
            (
                ("waiting_dirty_bytes", "what waiting writes will bring"),
                cache.waiting_dirty_bytes,
            ),
            (
                ("clients", "clients that are connected"),
                self.0.clients as u64,
            ),
        ] {
            one(out, name, &value)?;
        }
        let uptime = ("uptime_seconds", "for how long the server serves");
        one(out, uptime, &self.0.uptime_seconds)
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut encoder;
        self.by_volume(out, MetricType::Counter, |volume| numbers(&volume.counters))?;
        self.by_volume(out, MetricType::Gauge, |volume| numbers(&volume.gauges))?;
        self.requests(out)?;
        self.modes(out)?;
        self.limits(out)?;
        self.cache(out)
    }
}
