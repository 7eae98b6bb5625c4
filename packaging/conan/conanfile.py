# Builds the tree that this recipe lies in:  conan create packaging/conan --build=missing
from os.path import join

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.cmake import CMake, CMakeDeps, CMakeToolchain, cmake_layout
from conan.tools.files import copy


class Ppma(ConanFile):
    name = "ppma"
    version = "0.1.0"
    description = "Polyline path masked attention for vision transformers: headers and a compiled library"
    license = "MIT"
    settings = "os", "arch", "compiler", "build_type"
    package_type = "static-library"
    options = {"fPIC": [True, False]}
    default_options = {"fPIC": True}

    def requirements(self):
        self.requires("eigen/3.4.0", transitive_headers=True)
        self.requires("nlohmann_json/3.11.3", transitive_headers=True)
        self.requires("stb/cci.20240531", transitive_headers=True)

    def validate(self):
        check_min_cppstd(self, 20)

    def export_sources(self):
        root = join(self.recipe_folder, "..", "..")
        for pattern in ("CMakeLists.txt", "LICENSE", "cmake/*", "include/*", "src/*"):
            copy(self, pattern, src=root, dst=self.export_sources_folder)

    def layout(self):
        cmake_layout(self)

    def generate(self):
        CMakeDeps(self).generate()
        toolchain = CMakeToolchain(self)
        for option in ("BUILD_TESTS", "BUILD_EXAMPLES", "NATIVE"):
            toolchain.cache_variables[f"PPMA_{option}"] = "OFF"
        toolchain.generate()

    def build(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.build()

    def package(self):
        CMake(self).install()
        copy(self, "LICENSE", src=self.source_folder, dst=join(self.package_folder, "licenses"))

    def package_info(self):
        # The library's own CMake files define ppma::ppma and ppma::compiled.
        self.cpp_info.set_property("cmake_find_mode", "none")
        self.cpp_info.builddirs = [join("lib", "cmake", "ppma")]
        self.cpp_info.libs = ["ppma"]
        self.cpp_info.defines = ["PPMA_HEADER_ONLY=0"]
