// `_core.Arena`.
#include "errors.hpp"
#include "interrupts.hpp"
#include "py_arena.hpp"
#include "register.hpp"

#include "directory/directory.hpp"

#include <pybind11/stl.h>

namespace py = pybind11;

namespace ndarena::module {
namespace {

py::object text_or_none(const std::string& text) {
    if (text.empty()) {
        return py::none();
    }
    auto s = py::reinterpret_steal<py::object>(
        PyUnicode_DecodeFSDefaultAndSize(text.data(), static_cast<Py_ssize_t>(text.size())));
    if (!s) {
        throw py::error_already_set();
    }
    return s;
}

const void* address_of(const py::object& array) {
    if (!numpy::is_array(array.ptr())) {
        raise({errc::invalid, 0, "not a NumPy array", {}});
    }
    return numpy::data_of(array.ptr());
}

// Runs f(heap), which can be repeated, with the lease held and other Python
// threads running.
template <class F>
auto unlocked(const py_arena& self, F&& f) {
    const auto held = self.lease();
    return wait_patiently([&] { return f(held->heap()); }, [](const auto&) { return true; });
}

py::dict stats_of(const py_arena& self) {
    const heap::statistics s = unlocked(self, [](heap::heap& h) { return h.stats(); });
    py::dict d;
    d["capacity"] = s.capacity;
    d["committed"] = s.committed;
    d["allocated"] = s.allocated;
    d["peak_allocated"] = s.peak_allocated;
    d["largest_free"] = s.largest_free;
    d["n_blocks"] = s.n_blocks;
    d["n_free_blocks"] = s.n_free_blocks;
    d["resident"] = s.resident;
    d["oom_count"] = s.oom_count;
    d["processes"] = s.processes;
    d["in_transit"] = s.in_transit;
    return d;
}

py::object blocks_of(const py_arena& self) {
    const auto views = unlocked(self, [](heap::heap& h) { return h.blocks(); });
    std::vector<std::int64_t> values;
    values.reserve(views.size() * 3);
    for (const auto& v : views) {
        values.push_back(static_cast<std::int64_t>(v.offset));
        values.push_back(static_cast<std::int64_t>(v.size));
        values.push_back(static_cast<std::int64_t>(v.state));
    }
    auto table = py::reinterpret_steal<py::object>(numpy::new_table(values, 3));
    if (!table) {
        throw py::error_already_set();
    }
    return table;
}

std::uint64_t offset_of(const py_arena& self, const py::object& array) {
    const void* p = address_of(array);
    const auto held = self.lease();
    if (!held->heap().contains(p)) {
        raise({errc::invalid,
               0,
               "the array is not in this arena; ndarena.arena_of tells in which it is",
               {}});
    }
    return static_cast<std::uint64_t>(static_cast<const std::byte*>(p) - held->heap().base());
}

// Closes whatever happens; raises what the last flush did.
void close_arena(py_arena& self, bool flush) {
    result<void> flushed;
    {
        const auto held = self.lease_if_alive();
        if (!held || self.is_closed()) {
            return;
        }
        heap::heap& h = held->heap();
        directory::store::of(h).abort();  // a transaction that this thread has not ended
        h.forgo_last_flush(!flush);
        if (flush && self.is_last_opening() && h.wants_last_flush()) {
            const py::gil_scoped_release released;
            (void)h.trim();  // a file at rest takes no more than it holds
            flushed = h.flush();
            h.forgo_last_flush(flushed && h.live_blocks() == 0);  // nothing can change any more
        }
    }
    self.close();
    value_or_raise(std::move(flushed));
}

py::object make_handler(const py_arena& self, std::uint64_t min_size, bool fallback) {
    auto capsule = py::reinterpret_steal<py::object>(
        numpy::make_handler(self.lease(), self.closed_flag(), {min_size, fallback}));
    if (!capsule) {
        throw py::error_already_set();
    }
    return capsule;
}

}  // namespace

void register_arena(py::module_& m) {
    py::class_<py_arena, std::shared_ptr<py_arena>>(m, "Arena")
        .def_property_readonly("kind", &py_arena::kind)
        .def_property_readonly("filename",
                               [](const py_arena& self) { return text_or_none(self.filename()); })
        .def_property_readonly("name",
                               [](const py_arena& self) { return text_or_none(self.name()); })
        .def_property_readonly("mode", &py_arena::mode)
        .def_property_readonly("capacity", &py_arena::capacity)
        .def_property_readonly("alignment", &py_arena::alignment)
        .def_property_readonly("uuid", &py_arena::uuid)
        .def_property_readonly("closed", &py_arena::is_closed)
        .def_property_readonly("live_arrays",
                               [](const py_arena& self) {
                                   const auto held = self.lease_if_alive();
                                   return held ? held->heap().live_blocks() : 0;
                               })
        .def_property_readonly("allocated",
                               [](const py_arena& self) {
                                   const auto held = self.lease_if_alive();
                                   return held ? held->heap().allocated_bytes() : 0;
                               })
        .def_property_readonly(
            "allocations",
            [](const py_arena& self) {
                const auto held = self.lease_if_alive();
                return held
                           ? __atomic_load_n(&held->heap().seg().control().serial, __ATOMIC_RELAXED)
                           : 0;
            })
        .def_property_readonly(
            "base_address",
            [](const py_arena& self) {
                const auto held = self.lease_if_alive();
                return held ? reinterpret_cast<std::uintptr_t>(held->heap().base()) : 0;
            })
        .def(
            "close", [](py_arena& self, bool flush) { close_arena(self, flush); },
            py::arg("flush") = true)
        .def("unlink",
             [](const py_arena& self) {
                 value_or_raise(unlocked(self, [](heap::heap& h) { return h.unlink(); }));
             })
        .def(
            "grow",
            [](const py_arena& self, std::uint64_t capacity) {
                value_or_raise(
                    unlocked(self, [capacity](heap::heap& h) { return h.grow(capacity); }));
            },
            py::arg("capacity"))
        .def("stats", &stats_of)
        .def("process_counts",
             [](const py_arena& self) {
                 const auto c = unlocked(self, [](heap::heap& h) { return h.counts(); });
                 py::dict d;
                 d["n_allocations"] = c.n_allocations;
                 d["n_deallocations"] = c.n_deallocations;
                 d["allocated"] = c.allocated;
                 d["peak_allocated"] = c.peak_allocated;
                 d["n_failed"] = c.n_failed;
                 return d;
             })
        .def("check",
             [](const py_arena& self) {
                 return unlocked(self, [](heap::heap& h) { return h.check(); });
             })
        .def("trim",
             [](const py_arena& self) {
                 return unlocked(self, [](heap::heap& h) { return h.trim(); });
             })
        .def(
            "reclaim",
            [](const py_arena& self, std::uint64_t grace_ms) {
                return unlocked(self, [grace_ms](heap::heap& h) { return h.reclaim(grace_ms); });
            },
            py::arg("grace_ms"))
        .def_property_readonly("session",
                               [](const py_arena& self) { return self.lease()->heap().session(); })
        .def(
            "owns",
            [](const py_arena& self, const py::object& array) {
                return self.lease()->heap().contains(address_of(array));
            },
            py::arg("array"))
        .def("offset_of", &offset_of, py::arg("array"))
        .def("blocks", &blocks_of)
        .def("last_error",
             [](const py_arena& self) { return text_or_none(self.lease()->heap().refusal()); })
        .def("make_handler", &make_handler, py::arg("min_size"), py::arg("fallback"))
        .def(
            "set_purge",
            [](const py_arena& self, std::int64_t delay_ms, std::uint64_t budget) {
                self.lease()->heap().set_purge(delay_ms, budget);
            },
            py::arg("delay_ms"), py::arg("budget"));
}

}  // namespace ndarena::module
