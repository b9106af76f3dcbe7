"""The extension's build: every file is listed and ends up where the module looks for it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DATA_FOLDERS = ("Resources", "weights")
#: Not installed.
FOR_THE_WEB = {"Docs", "ExtensionsIndex", "Screenshots"}


def cmake_list(path, name):
    """Entries of ``set(name ...)`` in a CMake file, its variables replaced."""
    text = re.sub(r"#[^\n]*", "", path.read_text(encoding="utf-8"))
    body = re.search(rf"set\({name}\s(.*?)\)", text, re.S).group(1)
    return body.replace("${MODULE_NAME}", "NPCSynth").split()


def listed_wrongly(path, name, present):
    """"" when the list equals the disk, else what to paste."""
    listed = cmake_list(path, name)
    if sorted(listed) == sorted(present) and len(listed) == len(set(listed)):
        return ""
    lines = "\n".join(f"  {entry}" for entry in sorted(present))
    return (
        f"{path.relative_to(ROOT)} does not list what is there.\n"
        f"missing: {sorted(set(present) - set(listed))}\ngone: {sorted(set(listed) - set(present))}\n"
        f"Replace the list by:\n\nset({name}\n{lines}\n  )\n"
    )


def files(folder, pattern="*"):
    return [
        path for path in sorted((ROOT / folder).rglob(pattern))
        if path.is_file() and path.name != "CMakeLists.txt" and "__pycache__" not in path.parts
        and not path.name.startswith(".") and not FOR_THE_WEB & set(path.parts)
    ]


def library_scripts():
    return [path.relative_to(ROOT / "NPCSynthLib").as_posix() for path in files("NPCSynthLib", "*.py")]


def library_resources():
    return [p.relative_to(ROOT / "NPCSynthLib").as_posix() for p in files("NPCSynthLib") if p.suffix != ".py"]


def data_files():
    return [path.relative_to(ROOT).as_posix() for folder in DATA_FOLDERS for path in files(folder)]


def module_scripts():
    return [path.relative_to(ROOT / "NPCSynth").as_posix() for path in files("NPCSynth", "*.py")]


def module_resources():
    return [path.relative_to(ROOT / "NPCSynth").as_posix() for path in files("NPCSynth/Resources")]


def test_the_library_is_listed_whole():
    path = ROOT / "NPCSynthLib" / "CMakeLists.txt"
    problem = listed_wrongly(path, "NPCSynthLib_SCRIPTS", library_scripts())
    problem += listed_wrongly(path, "NPCSynthLib_RESOURCES", library_resources())
    assert not problem, problem


def test_resources_and_weights_are_listed_whole():
    problem = listed_wrongly(ROOT / "Resources" / "CMakeLists.txt", "NPCSynth_DATA", data_files())
    assert not problem, problem


def test_the_module_is_listed_whole():
    path = ROOT / "NPCSynth" / "CMakeLists.txt"
    problem = listed_wrongly(path, "MODULE_PYTHON_RESOURCES", module_resources())
    assert not problem, problem
    problem = listed_wrongly(path, "MODULE_PYTHON_SCRIPTS", module_scripts())
    assert not problem, problem


def metadata():
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    return dict(re.findall(r'set\((EXTENSION_\w+) "(.*?)"\)', text, re.S)), text


def test_the_extension_says_what_the_extensions_index_asks():
    values, text = metadata()
    for key in ("HOMEPAGE", "CATEGORY", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS"):
        assert values.get(f"EXTENSION_{key}"), key
    assert re.search(r"^project\(NPCSynth\)$", text, re.M)
    assert values["EXTENSION_DEPENDS"] == "PyTorch"
    assert "Research use only" in values["EXTENSION_DESCRIPTION"]
    order = ["find_package(Slicer", "Slicer_USE_FILE", "NEXT_MODULE", "GENERATE_CONFIG", "EXTENSION_CPACK"]
    assert [text.index(part) for part in order] == sorted(text.index(part) for part in order)


@pytest.mark.parametrize("key", ["EXTENSION_ICONURL", "EXTENSION_SCREENSHOTURLS"])
def test_pictures_named_to_the_index_are_in_the_repository(key):
    values, _ = metadata()
    prefix = values["EXTENSION_HOMEPAGE"].replace("github.com", "raw.githubusercontent.com") + "/main/"
    for url in values[key].split():
        assert url.startswith(prefix)
        path = ROOT / url.removeprefix(prefix)
        assert path.is_file(), f"{key} names {path.relative_to(ROOT)}, which is not there."
        assert path.read_bytes().startswith(b"\x89PNG")


def test_the_icon_is_square_and_large_enough():
    data = (ROOT / "NPCSynth" / "Resources" / "Icons" / "NPCSynth.png").read_bytes()
    width, height = (int.from_bytes(data[start:start + 4], "big") for start in (16, 20))
    assert width == height >= 128


# A stand-in for Slicer's CMake package: it installs as slicerMacroBuildScriptedModule does, and is as strict about
# files that do not exist and modules without scripts.
SLICER_CONFIG = r"""
set(Slicer_USE_FILE ${CMAKE_CURRENT_LIST_DIR}/empty.cmake)
set(Slicer_EXTENSION_GENERATE_CONFIG ${CMAKE_CURRENT_LIST_DIR}/empty.cmake)
set(Slicer_EXTENSION_CPACK ${CMAKE_CURRENT_LIST_DIR}/empty.cmake)
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR lib/qt-scripted-modules)
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR NPCSynth/lib/qt-scripted-modules)
macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MY "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MY_UNPARSED_ARGUMENTS OR NOT MY_NAME OR NOT MY_SCRIPTS)
    message(FATAL_ERROR "bad call for ${MY_NAME}")
  endif()
  set(_subdir "")
  if(MY_WITH_SUBDIR)
    get_filename_component(_subdir ${CMAKE_CURRENT_SOURCE_DIR} NAME)
  endif()
  foreach(_file IN LISTS MY_SCRIPTS MY_RESOURCES)
    if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${_file})
      message(FATAL_ERROR "nonexistent ${_file}")
    endif()
    get_filename_component(_folder ${_file} DIRECTORY)
    install(FILES ${_file} DESTINATION ${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR}/${_subdir}/${_folder})
  endforeach()
endmacro()
"""


@pytest.mark.skipif(shutil.which("cmake") is None, reason="CMake is not installed")
@pytest.mark.skipif(shutil.which("c++") is None, reason="a C++ compiler, which CMake's project() asks for, is missing")
def test_the_installed_extension_finds_its_library_and_data(tmp_path):
    slicer = tmp_path / "slicer"
    slicer.mkdir()
    (slicer / "SlicerConfig.cmake").write_text(SLICER_CONFIG, encoding="utf-8")
    (slicer / "empty.cmake").write_text("", encoding="utf-8")
    build, installed = tmp_path / "build", tmp_path / "installed"
    for command in (
        ["cmake", "-S", str(ROOT), "-B", str(build), f"-DSlicer_DIR={slicer}", "-DBUILD_TESTING=OFF",
         f"-DCMAKE_INSTALL_PREFIX={installed}"],
        ["cmake", "--install", str(build)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
    home = installed / "NPCSynth" / "lib" / "qt-scripted-modules"
    there = {path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()}
    library = {f"NPCSynthLib/{name}" for name in (*library_scripts(), *library_resources())}
    library |= {f"NPCSynthLib/{name}" for name in data_files()}  # not beside what other extensions install
    assert there == {*module_scripts(), *module_resources(), *library}
    code = (
        "from NPCSynthLib.resources import resource_path; from NPCSynthLib.vocabulary import load_sequences;"
        "print(resource_path('Resources', 'sequences.json'), len(load_sequences()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=home, capture_output=True, text=True, check=True)
    path, count = done.stdout.split()
    assert Path(path) == home / "NPCSynthLib" / "Resources" / "sequences.json" and int(count) >= 7
