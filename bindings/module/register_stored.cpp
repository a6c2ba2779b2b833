// What is stored of an arena, as opposed to what its processes see: for
// telling how far the two are apart, and for copying it while they go on.
#include "errors.hpp"
#include "py_arena.hpp"
#include "register.hpp"

#include <cerrno>
#include <cstring>
#include <optional>

namespace py = pybind11;

namespace ndarena::module {
namespace {

constexpr int patient_tries = 1000;

struct stored_root {
    std::uint64_t offset;  // of its page
    segment::root_page page;
};

// A copy of the current root page, which another process may be replacing.
std::optional<stored_root> current_root(const segment::segment& seg) {
    // Both pages where they are in the segment, so that offsets stay what they are.
    std::vector<std::byte> start(seg.geo().control_offset());
    std::memcpy(start.data(), seg.base(), start.size());
    const segment::root_page* root = segment::current_root(start.data(), seg.header());
    if (root == nullptr) {
        return std::nullopt;
    }
    const auto offset =
        static_cast<std::uint64_t>(reinterpret_cast<const std::byte*>(root) - start.data());
    return stored_root{offset, *root};
}

stored_root root_or_raise(const segment::segment& seg) {
    auto root = current_root(seg);
    if (!root) {
        raise({errc::corruption, 0, "both root pages are damaged; restore the file from a copy",
               seg.path()});
    }
    return *root;
}

// (epoch of the names, epoch of the stored ones, errno of a flush that failed).
py::tuple names_state(const py_arena& self) {
    const auto held = self.lease();
    const heap::heap& h = held->heap();
    const segment::control_page& c = h.seg().control();
    const std::uint64_t epoch = h.names().epoch;
    if (epoch == 0 && h.is_durable()) {
        // Nobody has opened it for writing since it was stored.
        const std::uint64_t stored = root_or_raise(h.seg()).page.epoch;
        return py::make_tuple(stored, stored, 0);
    }
    return py::make_tuple(epoch, __atomic_load_n(&c.durable, __ATOMIC_ACQUIRE),
                          __atomic_load_n(&c.durable_error, __ATOMIC_ACQUIRE));
}

// (descriptor, header page, offset of the root page, root page, offset of the
// control page, offset of the data). As long as the descriptor is open, no
// block that this root leads to is reused.
py::tuple pin_stored(const py_arena& self) {
    const auto held = self.lease();
    const segment::segment& seg = held->heap().seg();
    if (seg.kind() != segment::segment_kind::file || seg.fd() < 0) {
        raise({errc::unsupported, 0, "only an arena in a file is stored", seg.path()});
    }
    for (int i = 0; i < patient_tries; ++i) {
        const stored_root root = root_or_raise(seg);
        platform::unique_fd fd = value_or_raise(platform::reopen(seg.fd(), false));
        const std::uint64_t byte = segment::lock_base + segment::epoch_lock_base + root.page.epoch;
        if (platform::try_share_byte(fd.get(), byte) != platform::lock_answer::taken) {
            raise(platform::system_error("cannot lock the arena for reading", errno, seg.path()));
        }
        // Whoever stores another root after this finds the byte locked.
        if (root_or_raise(seg).page.sequence == root.page.sequence) {
            const auto& header = seg.header();
            const py::bytes page0(reinterpret_cast<const char*>(&header), sizeof header);
            const py::bytes page(reinterpret_cast<const char*>(&root.page), sizeof root.page);
            const segment::geometry& geo = seg.geo();
            return py::make_tuple(fd.release(), page0, root.offset, page, geo.control_offset(),
                                  geo.data_offset());
        }
    }
    raise({errc::lock_timeout, 0, "other processes flush faster than the arena can be copied",
           seg.path()});
}

}  // namespace

void register_stored(py::module_& m) {
    m.def("names_state", &names_state, py::arg("arena"));
    m.def("pin_stored", &pin_stored, py::arg("arena"));
}

}  // namespace ndarena::module
