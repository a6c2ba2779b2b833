// Versions and build facts, for bug reports.
#include "register.hpp"

#include "numpy/numpy.hpp"

#include <boost/version.hpp>

namespace py = pybind11;

namespace ndarena::module {

void register_config(py::module_& m) {
    m.attr("__version__") = NDARENA_VERSION;
    m.attr("FORMAT_VERSION") = static_cast<unsigned>(segment::format_version);
    m.def("config", [] {
        py::dict d;
        d["version"] = NDARENA_VERSION;
        d["format_version"] = static_cast<unsigned>(segment::format_version);
#if defined(__clang__)
        d["compiler"] = "clang " __clang_version__;
#else
        d["compiler"] = "g++ " __VERSION__;
#endif
        d["cplusplus"] = static_cast<long>(__cplusplus);
        d["build_type"] = NDARENA_BUILD_TYPE;
        d["pybind11"] =
            PYBIND11_TOSTRING(PYBIND11_VERSION_MAJOR) "." PYBIND11_TOSTRING(PYBIND11_VERSION_MINOR);
        d["boost"] = BOOST_LIB_VERSION;
        d["numpy_abi"] = numpy::abi_version();
        d["numpy_api_target"] = numpy::api_target();
        d["page_size"] = platform::page_size;
        return d;
    });
}

}  // namespace ndarena::module
