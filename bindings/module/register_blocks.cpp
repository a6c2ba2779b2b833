// Blocks: what references between processes are made of.
#include "errors.hpp"
#include "interrupts.hpp"
#include "py_arena.hpp"
#include "register.hpp"

#include <pybind11/stl.h>

namespace py = pybind11;

namespace ndarena::module {
namespace {

std::shared_ptr<numpy::lease> lease_of(const py::object& block, void*& address) {
    auto held = numpy::lease_of_block(block.ptr(), address);
    if (!held) {
        raise({errc::invalid, 0, "not a block of an arena", {}});
    }
    return held;
}

// Where to find the segment, and the block in it: kind, name or path, session,
// record, serial, offset.
py::tuple describe_block(const py::object& block) {
    void* address = nullptr;
    const auto held = lease_of(block, address);
    heap::block_id id;
    std::uint64_t nbytes = 0;
    if (!held->heap().identify(address, id, nbytes)) {
        raise({errc::stale, 0, "the block is gone", {}});
    }
    const auto& seg = held->heap().seg();
    const bool shared = seg.kind() == heap::segment_kind::shared;
    const std::string& where = shared ? seg.name() : seg.path();
    return py::make_tuple(shared,
                          steal_or_throw(PyUnicode_DecodeFSDefaultAndSize(
                              where.data(), static_cast<Py_ssize_t>(where.size()))),
                          held->heap().session(), id.record, id.serial, id.offset);
}

py::tuple send(const py::object& block, std::uint32_t readers) {
    void* address = nullptr;
    const auto held = lease_of(block, address);
    auto sent = held->heap().send(address, readers);
    if (!sent) {
        raise(sent.err());
    }
    return py::make_tuple(sent->index, sent->serial);
}

// None if no segment of that session is open here.
py::object attach(std::uint64_t session, std::uint32_t record, std::uint64_t serial,
                  std::uint64_t offset, std::uint32_t token, std::uint64_t token_serial) {
    auto found = heap::heap::find_session(session);
    if (!found) {
        return py::none();
    }
    std::uint64_t nbytes = 0;
    auto address = found->attach({offset, serial, record}, {token, token_serial}, nbytes);
    if (!address) {
        raise(address.err());
    }
    PyObject* block = numpy::new_block(numpy::lease::of(found), *address);
    if (block == nullptr) {
        (void)found->deallocate(*address);
    }
    return steal_or_throw(block);
}

}  // namespace

void register_blocks(py::module_& m) {
    m.def(
        "publish",
        [](const py::object& array) {
            if (!numpy::is_array(array.ptr())) {
                raise({errc::invalid, 0, "not a NumPy array", {}});
            }
            return steal_or_throw(numpy::publish(array.ptr()));
        },
        py::arg("array"));
    m.def(
        "offset_in_block",
        [](const py::object& block, const py::object& array) {
            return numpy::offset_in_block(block.ptr(), array.ptr());
        },
        py::arg("block"), py::arg("array"));
    m.def("describe_block", &describe_block, py::arg("block"));
    m.def("send_block", &send, py::arg("block"), py::arg("readers"));
    m.def("attach_block", &attach, py::arg("session"), py::arg("record"), py::arg("serial"),
          py::arg("offset"), py::arg("token"), py::arg("token_serial"));
    m.def(
        "array_over",
        [](const py::object& block, const py::object& dtype, const std::vector<std::int64_t>& shape,
           const std::vector<std::int64_t>& strides, std::int64_t offset, bool writeable) {
            return steal_or_throw(
                numpy::array_over(block.ptr(), dtype.ptr(), shape, strides, offset, writeable));
        },
        py::arg("block"), py::arg("dtype"), py::arg("shape"), py::arg("strides"), py::arg("offset"),
        py::arg("writeable"));
    m.def(
        "sweep_segments",
        [](std::uint64_t grace_ms) {
            const py::gil_scoped_release released;
            return segment::sweep_transient(grace_ms);
        },
        py::arg("grace_ms"));
}

}  // namespace ndarena::module
