# Written by scripts/build_stubs.py.
# ruff: noqa
from . import model as model, session as session, sheet as sheet
from .model import class_names_of
from .session import Session, Settings, classify, embed, open_session
from .sheet import ContactSheet
__all__ = ['ContactSheet', 'Session', 'Settings', 'class_names_of', 'classify', 'embed', 'open_session']
