// Opening: four functions, one for each kind.
#include "errors.hpp"
#include "interrupts.hpp"
#include "py_arena.hpp"
#include "register.hpp"

#include "directory/directory.hpp"

#include <memory>
#include <optional>

#include <pybind11/stl.h>

namespace py = pybind11;

namespace ndarena::module {
namespace {

using options = heap::segment_options;

heap::open_mode mode_from(const std::string& mode) {
    if (mode == "r") {
        return heap::open_mode::read;
    }
    if (mode == "r+") {
        return heap::open_mode::read_write;
    }
    if (mode == "w") {
        return heap::open_mode::create;
    }
    if (mode == "w-" || mode == "x") {
        return heap::open_mode::exclusive;
    }
    if (mode == "a") {
        return heap::open_mode::append;
    }
    raise({errc::invalid, 0, "mode must be one of 'r', 'r+', 'w', 'w-', 'x', 'a'", {}});
}

std::shared_ptr<py_arena> open_with(const options& o) {
    // Waits for other processes, reads and maps. Nothing has happened yet when a
    // lock was not to be had.
    auto opened = wait_patiently(
        [&] { return directory::open_heap(o); },
        [](const auto& got) { return !got && got.err().code == errc::lock_timeout; });
    if (!opened) {
        raise(opened.err());
    }
    if (!(*opened)->seg().writable()) {
        // It shows the names of this moment; other openings in this process follow.
        value_or_raise(directory::store::of(**opened).refresh());
    }
    auto held = std::make_shared<numpy::lease>(std::move(*opened));
    numpy::lease::enroll(held);
    auto arena = std::make_shared<py_arena>(std::move(held));
    arena->enroll();
    return arena;
}

// A file or a shared segment, which differ in what the name is a name of.
std::shared_ptr<py_arena> open_named(heap::segment_kind kind, std::string path,
                                     const std::string& mode, std::uint64_t capacity,
                                     std::uint64_t alignment, unsigned perm,
                                     bool transient = false) {
    options o;
    o.kind = kind;
    o.path = std::move(path);
    o.mode = mode_from(mode);
    o.capacity = capacity;
    o.alignment = alignment;
    o.perm = perm;
    o.transient = transient;
    return open_with(o);
}

std::string path_bytes(const py::str& path) {
    const auto encoded = py::reinterpret_steal<py::bytes>(PyUnicode_EncodeFSDefault(path.ptr()));
    if (!encoded) {
        throw py::error_already_set();
    }
    std::string bytes = encoded;
    if (bytes.find('\0') != std::string::npos) {
        raise({errc::invalid, 0, "a path cannot contain a null character", {}});
    }
    return bytes;
}

// Whether the exporter is a plain mmap.mmap: other anonymous shared pages may be
// known to a device, which must not lose them.
bool is_plain_mmap(py::object exporter) {
    const auto mmap_type = py::module_::import("mmap").attr("mmap");
    for (int depth = 0; depth < 16 && !exporter.is_none(); ++depth) {
        if (py::isinstance(exporter, mmap_type)) {
            return true;
        }
        if (py::hasattr(exporter, "obj")) {  // memoryview
            exporter = exporter.attr("obj");
        } else if (py::hasattr(exporter, "base")) {  // ndarray, memmap
            exporter = exporter.attr("base");
        } else {
            break;
        }
    }
    return false;
}

std::shared_ptr<py_arena> open_buffer(const py::object& source, std::uint64_t alignment,
                                      bool format) {
    auto view = std::make_unique<Py_buffer>();
    // Writable and C-contiguous; BufferError from the object otherwise.
    if (PyObject_GetBuffer(source.ptr(), view.get(), PyBUF_CONTIG) != 0) {
        throw py::error_already_set();
    }
    options o;
    o.kind = heap::segment_kind::buffer;
    o.buffer = view->buf;
    o.buffer_size = static_cast<std::uint64_t>(view->len);
    o.alignment = alignment;
    o.format_buffer = format;
    o.plain_memory = is_plain_mmap(source);
    o.keep_alive = numpy::hold_buffer(view.release());
    return open_with(o);
}

}  // namespace

void register_open(py::module_& m) {
    m.def(
        "open_file",
        [](const py::str& path, const std::string& mode, std::uint64_t capacity,
           std::uint64_t alignment, unsigned perm) {
            return open_named(heap::segment_kind::file, path_bytes(path), mode, capacity, alignment,
                              perm);
        },
        py::arg("path"), py::arg("mode"), py::arg("capacity"), py::arg("alignment"),
        py::arg("perm"));
    m.def(
        "open_shared",
        [](const std::optional<std::string>& name, const std::string& mode, std::uint64_t capacity,
           std::uint64_t alignment, unsigned perm) {
            return open_named(heap::segment_kind::shared,
                              name ? *name : "ndarena-" + platform::random_name(), mode, capacity,
                              alignment, perm, !name);
        },
        py::arg("name"), py::arg("mode"), py::arg("capacity"), py::arg("alignment"),
        py::arg("perm"));
    m.def(
        "open_scratch",
        [](std::uint64_t capacity, const py::str& dir, std::uint64_t alignment) {
            options o;
            o.kind = heap::segment_kind::scratch;
            o.path = path_bytes(dir);
            o.capacity = capacity;
            o.alignment = alignment;
            return open_with(o);
        },
        py::arg("capacity"), py::arg("dir"), py::arg("alignment"));
    m.def("open_buffer", &open_buffer, py::arg("buffer"), py::arg("alignment"), py::arg("format"));
}

}  // namespace ndarena::module
