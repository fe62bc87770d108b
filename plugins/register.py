"""What verl imports in every process of a run, through VERL_USE_EXTERNAL_MODULES (it fails loudly) or,
in a process that was started without it, through the entry point `verl.plugins`.

Everything here must be cheap: it runs in a dozen processes. Modules of verl are touched only when
verl itself imports them (`wrapt.when_imported`).
"""

from plugins import algos
from plugins.cpu import platform as cpu_platform
from plugins.patches import table

cpu_platform.register()
table.apply()
algos.register()
