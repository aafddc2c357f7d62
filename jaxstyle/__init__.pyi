from jaxstyle.images.load import load_image as load_image
from jaxstyle.images.save import save_image as save_image
from jaxstyle.losses import masks as masks, statistics_io as statistics_io
from jaxstyle.losses.loss_terms import objective_value as objective_value, terms as terms, total as total
from jaxstyle.losses.objective import Objective as Objective
from jaxstyle.losses.targets import make_targets as make_targets, summarize_style as summarize_style
from jaxstyle.networks.pretrained import load_params as load_params
from jaxstyle.networks.vgg import VGG19 as VGG19
from jaxstyle.optim import parametrizations as parametrizations
from jaxstyle.optim.loop import init_state as init_state, run_steps as run_steps
from jaxstyle.optim.optimizers import LBFGS as LBFGS, Adam as Adam, Optax as Optax, Parametrization as Parametrization
from jaxstyle.runtime.compile_cache import enable_compile_cache as enable_compile_cache
from jaxstyle.transfer import color as color, presets as presets
from jaxstyle.transfer.stylize import reconstruct as reconstruct, stylize as stylize, texture as texture
from jaxstyle.transfer.sweep import sweep as sweep

__version__: str
__all__: list[str]
