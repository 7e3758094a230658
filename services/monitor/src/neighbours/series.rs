//! What other nodes know of metrics: series with their samples, labels, what metrics are, exemplars.

use std::collections::{BTreeMap, BTreeSet};

use ninefold_promql::{Labels, Selection, Series};
use ninefold_proto::ninefold::monitor::v1 as proto;

use super::question::{Failed, Question, drained};
use crate::error::Error;
use crate::metrics::{About, Exemplar, Type, overlay, unpacked};
use crate::wire::neighbour as wire;

/// What others say of series, by what was asked for.
pub(crate) type Others = Vec<Vec<Series>>;

impl Question {
    /// Series of the others, for each selection those that match it, each series once; and how many of their files could
    /// not be read.
    ///
    /// # Errors
    /// None: what is missing is noted.
    pub(crate) async fn series(&self, asked: &[Selection], samples_max: usize) -> Result<(Others, u64), Error> {
        if self.is_alone() || asked.is_empty() {
            return Ok((Vec::new(), 0));
        }
        let request = proto::ReadSeriesRequest {
            selections: asked.iter().map(wire::selection).collect(),
            samples_max: u64::try_from(samples_max).unwrap_or(u64::MAX),
        };
        let told = self.each(|mut client| {
            let request = self.request(request.clone());
            async move {
                let mut stream = client.read_series(request).await?.into_inner();
                let (mut all, mut unread) = (Vec::new(), 0);
                let take = |some: proto::ReadSeriesResponse| {
                    all.extend(some.series);
                    unread += some.unread;
                };
                drained(&mut stream, take).await?;
                Ok((all, unread))
            }
        });
        let mut joined: Vec<BTreeMap<Labels, Vec<_>>> = vec![BTreeMap::new(); asked.len()];
        let mut unread = 0;
        for (all, passed) in told.await? {
            unread += passed;
            for series in all {
                let place = usize::try_from(series.selection).ok().and_then(|at| joined.get_mut(at));
                let (Some(of), Some(samples)) = (place, unpacked(&series.samples)) else { continue };
                overlay(of.entry(wire::labels_of(&series.labels)).or_default(), samples);
            }
        }
        let of = |of: BTreeMap<Labels, _>| of.into_iter().map(|(labels, samples)| Series { labels, samples }).collect();
        Ok((joined.into_iter().map(of).collect(), unread))
    }

    async fn beside(
        &self,
        asked: &[Selection],
        part: proto::LabelsPart,
    ) -> Result<Vec<proto::ReadLabelsResponse>, Error> {
        let request =
            proto::ReadLabelsRequest { selections: asked.iter().map(wire::selection).collect(), part: part.into() };
        let told = self.each(|mut client| {
            let request = self.request(request.clone());
            async move {
                let mut stream = client.read_labels(request).await?.into_inner();
                let mut all = Vec::new();
                drained(&mut stream, |some| all.push(some)).await?;
                Ok::<_, Failed>(all)
            }
        });
        Ok(told.await?.into_iter().flatten().collect())
    }

    /// Labels of the others' series that match one of the selections; of all, if there are none.
    ///
    /// # Errors
    /// As [`Question::series`].
    pub(crate) async fn labels(&self, asked: &[Selection]) -> Result<BTreeSet<Labels>, Error> {
        let told = self.beside(asked, proto::LabelsPart::Series).await?;
        Ok(told.iter().flat_map(|some| &some.series).map(|set| wire::labels_of(&set.labels)).collect())
    }

    /// Labels of the others' series that are in memory, and what their metrics are.
    ///
    /// # Errors
    /// As [`Question::series`].
    pub(crate) async fn metrics(&self) -> Result<(BTreeSet<Labels>, BTreeMap<String, About>), Error> {
        let (mut series, mut about) = (BTreeSet::new(), BTreeMap::new());
        for some in self.beside(&[], proto::LabelsPart::Metrics).await? {
            series.extend(some.series.iter().map(|set| wire::labels_of(&set.labels)));
            about.extend(some.metrics.into_iter().map(|metric| {
                let of = Type::of_word(&metric.r#type);
                (metric.name, About { of, unit: metric.unit, help: metric.help })
            }));
        }
        Ok((series, about))
    }

    /// Exemplars of the others' series that match.
    ///
    /// # Errors
    /// As [`Question::series`].
    pub(crate) async fn exemplars(&self, asked: &[Selection]) -> Result<Vec<(Labels, Exemplar)>, Error> {
        let one = |told: proto::SeriesExemplar| {
            let labels = |set: Option<proto::LabelSet>| wire::labels_of(&set.unwrap_or_default().labels);
            (labels(told.series), Exemplar { at: told.at_millis, value: told.value, labels: labels(told.own) })
        };
        let told = self.beside(asked, proto::LabelsPart::Exemplars).await?;
        Ok(told.into_iter().flat_map(|some| some.exemplars).map(one).collect())
    }
}
