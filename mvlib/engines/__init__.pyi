# Written by scripts/build_stubs.py.
# ruff: noqa
from . import exporter as exporter, folder as folder, module as module, runtime as runtime
from .exporter import ExportReport, export
from .folder import EngineFolder, is_export, read_export
from .module import EngineModule
from .runtime import Engine, open_engine
__all__ = ['Engine', 'EngineFolder', 'EngineModule', 'ExportReport', 'export', 'is_export', 'open_engine', 'read_export']
