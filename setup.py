"""What pyproject.toml cannot say: a wheel carries the compiled launcher, if the machine that builds it can link one.

Without a compiler and a static C library the wheel is for any machine, and `pycni install` compiles or does without.
"""

import os
import sys
import sysconfig

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "src"))

from pycni.exe.build_launcher import PREBUILT, build


class BuildWithLauncher(build_py):
    """Adds pycni/exe/launcher to what is built; an editable installation compiles at `pycni install`."""

    def run(self):
        super().run()
        if not self.editable_mode:
            target = os.path.join(self.build_lib, "pycni", "exe", os.path.basename(PREBUILT))
            # Static only: a dynamic one would ask for the builder's version of the C library.
            self.distribution.has_launcher = build(target, may_be_dynamic=False) is not None


class WheelForThisArchitecture(bdist_wheel):
    """For any Python 3, but for one architecture, once a launcher is in it."""

    def get_tag(self):
        tag = super().get_tag()
        if not getattr(self.distribution, "has_launcher", False):
            return tag
        return "py3", "none", sysconfig.get_platform().replace("-", "_").replace(".", "_")


setup(cmdclass={"build_py": BuildWithLauncher, "bdist_wheel": WheelForThisArchitecture})
