"""Loads what the stages stored, as Arrow tables, for assets of your own and for notebooks.

The stages stream their rows into Parquet segments themselves, because a bulk run does not fit into
memory; so there is nothing left to write when an asset returns. Reading is where Dagster helps:
an asset that takes ``chunks: pa.Table`` gets the live chunks of its partitions.
"""

from typing import Any

import dagster as dg
import pyarrow as pa

from rag_platform.backends.object_stores.base import ObjectStore
from rag_platform.ingestion.live_rows import live_rows
from rag_platform.resources.platform import PlatformResource

_STAGE_OF = {"parsed_documents": "parse", "chunks": "chunk", "embeddings": "embed"}


class SegmentIOManager(dg.ConfigurableIOManager):
    """Parquet in the object store; never pickle.

    ``source_snapshots``, ``parsed_documents``, ``chunks`` and ``embeddings`` load as the rows of the
    live documents of the partitions asked for. Other assets may return a ``pa.Table``, which is kept
    under ``exports/<asset>.parquet`` and loads as it was.
    """

    platform: dg.ResourceDependency[PlatformResource]

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        import pyarrow.parquet as pq

        if obj is None:
            return
        if not isinstance(obj, pa.Table):
            raise TypeError(f"asset {context.asset_key.to_user_string()} must return a pyarrow Table or nothing")
        sink = pa.BufferOutputStream()
        pq.write_table(obj, sink, compression="zstd")
        objects = self.platform.bench.objects
        objects.put(_export_key(context.asset_key), sink.getvalue().to_pybytes())
        context.add_output_metadata({"parquet": _uri(objects, context.asset_key), "rows": obj.num_rows})

    def load_input(self, context: dg.InputContext) -> pa.Table:
        import pyarrow.parquet as pq

        name, bench = context.asset_key.path[-1], self.platform.bench
        if name in _STAGE_OF or name == "source_snapshots":
            buckets = context.asset_partition_keys if context.has_asset_partitions else bench.bucket_names
            return live_rows(bench, _STAGE_OF.get(name, "snapshot"), buckets)
        return pq.read_table(pa.BufferReader(bench.objects.get(_export_key(context.asset_key))))


def _export_key(key: dg.AssetKey) -> str:
    return f"exports/{'/'.join(key.path)}.parquet"


def _uri(objects: ObjectStore, key: dg.AssetKey) -> str:
    return objects.uri(_export_key(key))
