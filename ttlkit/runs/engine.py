"""papermill's engine `ttlkit`: a wrong parameter is refused before a kernel starts.

papermill --engine ttlkit notebooks/02_teacher_pretraining.ipynb out.ipynb -p task deblur
"""

from pathlib import Path

from papermill.engines import NBClientEngine


class CheckedEngine(NBClientEngine):
    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, **options):
        from click import ClickException  # papermill imports this module whenever it is imported itself

        from ttlkit.runs.settings import STAGES, resolve
        from ttlkit.words import SettingsError

        facts = nb_man.nb.metadata.papermill
        kind = STAGES.get(Path(str(facts.get("input_path"))).stem)
        try:
            if kind:
                resolve(kind, facts.get("parameters", {}))
        except SettingsError as error:
            raise ClickException(str(error)) from None
        return super().execute_managed_notebook(nb_man, kernel_name, **options)
