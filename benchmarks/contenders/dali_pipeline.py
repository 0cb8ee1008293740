"""A plain NVIDIA DALI pipeline doing the same work."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.work import picture
from gpuseq.base.threads import cpu_count

from . import Absent, Contender, need

__all__ = ["Dali"]


class Dali(Contender):
    """Reader, decoder and resize for files; one composed ``warp_affine`` for the augmentation."""

    ahead = 2

    def prepare(self) -> None:
        if self.case.dtype != "float32":
            raise Absent("not measured: float32 only")
        need("nvidia.dali")
        import nvidia.dali.fn as fn
        import nvidia.dali.types as types
        from nvidia.dali import pipeline_def

        self.fn, self.types, self.pipeline_def = fn, types, pipeline_def
        self.on_gpu = self.case.device == "cuda"
        self.options = {
            "num_threads": cpu_count(),
            "device_id": 0 if self.on_gpu else None,
            "prefetch_queue_depth": 2,
        }
        self.pipeline: Any = None

    def _warped(self, images: Any) -> Any:
        fn, size = self.fn, self.case.size
        center = (size / 2, size / 2)
        matrix = fn.transforms.rotation(angle=fn.random.uniform(range=(-20.0, 20.0)), center=center)
        matrix = fn.transforms.shear(matrix, angles=fn.random.uniform(range=(-10.0, 10.0), shape=(2,)), center=center)
        matrix = fn.transforms.scale(matrix, scale=fn.random.uniform(range=(0.8, 1.2), shape=(2,)), center=center)
        matrix = fn.transforms.translation(
            matrix, offset=fn.random.uniform(range=(-0.1 * size, 0.1 * size), shape=(2,))
        )
        return fn.warp_affine(images, matrix=matrix, interp_type=self.types.INTERP_LINEAR, inverse_map=True)

    def _finished(self, images: Any) -> Any:
        mirror = self.fn.random.coin_flip(probability=0.5) if self.case.augment else 0
        return self.fn.crop_mirror_normalize(
            images, dtype=self.types.FLOAT, output_layout="HWC", mean=[0.0], std=[255.0], mirror=mirror
        )

    def rotate(self, degrees: float) -> np.ndarray | None:
        fn, image = self.fn, picture()

        @self.pipeline_def(batch_size=1, **{**self.options, "prefetch_queue_depth": 1})
        def turn() -> Any:
            loaded = fn.external_source(lambda: [image], batch=True, layout="HWC")
            loaded = loaded.gpu() if self.on_gpu else loaded
            center = (len(image) / 2, len(image) / 2)
            matrix = fn.transforms.rotation(angle=degrees, center=center)
            return fn.warp_affine(loaded, matrix=matrix, interp_type=self.types.INTERP_LINEAR)

        made = turn()
        made.build()
        return np.asarray(self._host(made.run()[0]))[0]

    def start(self) -> None:
        fn, case = self.fn, self.case

        @self.pipeline_def(batch_size=case.batch, **self.options)
        def files() -> Any:
            encoded, label = fn.readers.file(
                file_root=self.folder(), random_shuffle=True, initial_fill=case.samples, name="reader", seed=1
            )
            images = fn.decoders.image(encoded, device="mixed" if self.on_gpu else "cpu", output_type=self.types.RGB)
            images = fn.resize(
                images, size=(case.size, case.size), interp_type=self.types.INTERP_LINEAR, antialias=True
            )
            return self._finished(self._warped(images) if case.augment else images), label

        @self.pipeline_def(batch_size=case.batch, **self.options)
        def arrays() -> Any:
            where = "gpu" if self.on_gpu else "cpu"
            images = fn.external_source(source=self._rows(), batch=True, layout="HWC", device=where)
            return self._finished(self._warped(images)), images

        self.close()
        self.pipeline = files() if case.files else arrays()
        self.pipeline.build()

    def _rows(self) -> Any:
        images, rng, batch = self.array(), np.random.default_rng(1), self.case.batch
        if self.on_gpu:
            import cupy

            images = cupy.asarray(images)

        def batches() -> Any:
            while True:
                order = rng.permutation(len(images))
                for start in range(0, len(images) - batch + 1, batch):
                    yield images[order[start : start + batch]]

        return batches()

    def next_batch(self) -> Any:
        return self.pipeline.run()[0]

    def _host(self, batch: Any) -> Any:
        return batch.as_cpu().as_array() if self.on_gpu else batch.as_array()

    def to_host(self, batch: Any) -> np.ndarray:
        return np.asarray(self._host(batch))

    def synchronize(self) -> None:
        if self.on_gpu:
            import cupy

            cupy.cuda.Device().synchronize()

    def close(self) -> None:
        self.pipeline = None
