"""A wrong parameter of a notebook of ttlkit is refused before a kernel starts; other notebooks run as always.

papermill loads this module when it is imported (entry point `ttlkit`), and takes this engine where none is named:

papermill notebooks/02_teacher_pretraining.ipynb out.ipynb -p task deblur
"""

import re

from papermill.engines import NBClientEngine, papermill_engines

START = re.compile(r'stages\.start\("(\w+)"')  # in each notebook of ttlkit, whatever its file is called


class CheckedEngine(NBClientEngine):
    @classmethod
    def execute_notebook(cls, nb, kernel_name, *args, **options):
        from click import ClickException  # papermill imports this module whenever it is imported itself

        from ttlkit.words import SettingsError

        began = (START.search(cell.source) for cell in nb.cells if cell.cell_type == "code")
        if stage := next(filter(None, began), None):
            try:
                _check(stage[1], nb.metadata.papermill.get("parameters", {}))
            except SettingsError as error:  # before papermill writes anything: what lies at the output stays
                raise ClickException(str(error)) from None
        return super().execute_notebook(nb, kernel_name, *args, **options)


def _check(stage, parameters):
    """Raise SettingsError for a parameter or a name in it that there is not."""
    from ttlkit.method.connected_tasks import TASKS
    from ttlkit.method.starts import STARTS
    from ttlkit.runs.settings import STAGES, resolve
    from ttlkit.words import check_name, split_names

    if stage not in STAGES:
        return
    settings = resolve(STAGES[stage], parameters)
    starts = [*STARTS, *TASKS]
    for field, known in {"task": TASKS, "tasks": TASKS, "guide": TASKS, "init": starts, "inits": starts}.items():
        for name in split_names(getattr(settings, field, "")):
            check_name(name, known, field)


papermill_engines.register(None, CheckedEngine)  # None: where no engine is named
