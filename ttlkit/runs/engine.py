"""A wrong parameter of a notebook of ttlkit is refused before a kernel starts; other notebooks run as always.

papermill loads this module when it is imported (entry point `ttlkit`), and takes this engine where none is named:

papermill notebooks/02_teacher_pretraining.ipynb out.ipynb -p task deblur
"""

from pathlib import Path

from papermill.engines import NBClientEngine, papermill_engines


class CheckedEngine(NBClientEngine):
    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, **options):
        from click import ClickException  # papermill imports this module whenever it is imported itself

        from ttlkit.runs.settings import STAGES, resolve
        from ttlkit.words import SettingsError

        facts = nb_man.nb.metadata.papermill
        kind = STAGES.get(Path(str(facts.get("input_path"))).stem)
        ours = kind and any("ttlkit" in cell.source for cell in nb_man.nb.cells)
        try:
            if ours:
                resolve(kind, facts.get("parameters", {}))
        except SettingsError as error:
            raise ClickException(str(error)) from None
        return super().execute_managed_notebook(nb_man, kernel_name, **options)


papermill_engines.register(None, CheckedEngine)  # None: where no engine is named
