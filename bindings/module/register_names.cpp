// Names: the directory of an arena, transactions, flushing.
#include "errors.hpp"
#include "interrupts.hpp"
#include "py_arena.hpp"
#include "register.hpp"

#include "directory/directory.hpp"

#include <algorithm>
#include <optional>

#include <pybind11/stl.h>

namespace py = pybind11;

namespace ndarena::module {
namespace {

constexpr std::uint64_t forever = ~std::uint64_t{0};
constexpr std::uint64_t usual_patience_ms = 60000;
constexpr std::uint64_t long_copy = std::uint64_t{256} << 10;  // other threads may run meanwhile

using directory::store;

std::string key_of(const py::str& name) {
    Py_ssize_t size = 0;
    const char* text = PyUnicode_AsUTF8AndSize(name.ptr(), &size);
    if (text == nullptr) {
        throw py::error_already_set();
    }
    if (size == 0 || static_cast<std::size_t>(size) > directory::max_key_bytes) {
        raise({errc::invalid,
               0,
               "a name has 1 to " + std::to_string(directory::max_key_bytes) +
                   " bytes of UTF-8, not " + std::to_string(size),
               {}});
    }
    return {text, static_cast<std::size_t>(size)};
}

py::str text_of(std::string_view bytes) {
    return py::reinterpret_steal<py::str>(
        steal_or_throw(
            PyUnicode_DecodeUTF8(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "replace"))
            .release());
}

std::uint64_t after_ms(std::uint64_t ms) noexcept {
    const std::uint64_t now = platform::monotonic_milliseconds();
    return ms > ~now ? forever : now + ms;
}

// Runs f(names), which can be repeated until it has had its turn, without the
// interpreter: whoever has the turn may need it.
template <class F>
auto in_turn(const py_arena& self, F&& f, std::uint64_t patience_ms = usual_patience_ms) {
    const auto held = self.lease();
    store& names = store::of(held->heap());
    if (names.in_transaction()) {
        return value_or_raise([&] {
            const py::gil_scoped_release released;
            return f(names);
        }());
    }
    auto got = wait_patiently(
        [&] { return f(names); },
        [](const auto& tried) { return !tried && tried.err().code == errc::lock_timeout; },
        after_ms(patience_ms));
    return value_or_raise(std::move(got));
}

template <class F>
auto at_once(const py_arena& self, F&& f) {
    const auto held = self.lease();
    return value_or_raise(f(store::of(held->heap())));
}

// None if there is no such name. `decode` makes a dtype of the stored bytes.
py::object load(const py_arena& self, const py::str& name, const py::object& decode) {
    const auto held = self.lease();
    heap::heap& h = held->heap();
    const std::string key = key_of(name);
    directory::entry e;
    bool found = false;
    directory::reader_pin pin;
    auto address = store::of(h).hold(key, e, found, pin);
    if (!address) {
        raise(address.err());
    }
    if (!found) {
        return py::none();
    }
    py::object block;
    if (*address != nullptr) {
        PyObject* made = numpy::new_block(held, *address, pin);
        if (made == nullptr && !pin) {
            (void)h.deallocate(*address);
        }
        block = steal_or_throw(made);
    }
    const py::object dtype = decode(py::bytes(e.descr));
    return steal_or_throw(numpy::whole_array(block.ptr(), dtype.ptr(), e.shape, e.fortran, e.nbytes,
                                             h.seg().writable()));
}

// A block of this process with a copy of the array's bytes.
void* copy_in(heap::heap& h, const numpy::array_layout& layout) {
    void* address = h.allocate(layout.nbytes, 0, false);
    if (address == nullptr && h.is_durable() && h.has_unflushed_names()) {
        // What dropped names held is free after a flush.
        auto flushed = wait_patiently([&] { return h.flush(); }, [](const auto&) { return false; });
        address = flushed ? h.allocate(layout.nbytes, 0, false) : nullptr;
    }
    if (address == nullptr) {
        raise({errc::no_memory, 0, h.refusal(), h.seg().path()});
    }
    if (layout.nbytes >= long_copy) {
        const py::gil_scoped_release released;
        h.fill(address, layout.data, layout.nbytes);
    } else {
        h.fill(address, layout.data, layout.nbytes);
    }
    return address;
}

// True if the name holds the array's own memory from now on, false if a copy.
// The array is contiguous.
bool save(const py_arena& self, const py::str& name, const py::object& array,
          const py::bytes& descr, bool replace) {
    const auto held = self.lease();
    heap::heap& h = held->heap();
    if (!numpy::is_array(array.ptr())) {
        raise({errc::invalid, 0, "not a NumPy array", {}});
    }
    if (!h.seg().writable()) {
        raise({errc::read_only, 0, "the arena was opened for reading (mode 'r')", h.seg().path()});
    }
    const std::string key = key_of(name);
    const numpy::array_layout layout = numpy::layout_of(array.ptr());
    if (!layout.contiguous) {
        raise({errc::invalid, 0, "the array is not contiguous", {}});
    }
    directory::entry e;
    e.nbytes = layout.nbytes;
    e.fortran = layout.fortran;
    e.shape = layout.shape;
    e.descr = descr;
    void* address = nullptr;
    bool own = false;
    py::object block;
    if (layout.nbytes != 0) {
        if (h.contains(layout.data)) {
            block = steal_or_throw(numpy::publish(array.ptr(), false));
            void* start = nullptr;
            const auto other =
                block.is_none() ? nullptr : numpy::lease_of_block(block.ptr(), start);
            own = other && &other->heap() == &h && start == layout.data &&
                  h.size_of(start) == layout.nbytes;
        }
        address = own ? layout.data : copy_in(h, layout);
    }
    try {
        in_turn(self, [&](store& s) { return s.put(key, e, address, replace); });
    } catch (...) {
        if (!own && address != nullptr) {
            (void)h.deallocate(address);
        }
        throw;
    }
    if (!own && address != nullptr) {
        (void)h.deallocate(address);
    }
    return own;
}

py::object describe(const py_arena& self, const py::str& name) {
    const std::string key = key_of(name);
    directory::entry e;
    if (!at_once(self, [&](store& s) { return s.find(key, e); })) {
        return py::none();
    }
    return py::make_tuple(py::bytes(e.descr), py::tuple(py::cast(e.shape)), e.fortran, e.nbytes,
                          e.offset, text_of(e.attrs));
}

py::list list(const py_arena& self, const std::string& prefix,
              const std::optional<std::string>& after, std::size_t limit) {
    const auto names = at_once(self, [&](store& s) { return s.list(prefix, after, limit); });
    py::list texts;
    for (const std::string& name : names) {
        texts.append(text_of(name));
    }
    return texts;
}

}  // namespace

void register_names(py::module_& m) {
    m.def("load_named", &load, py::arg("arena"), py::arg("name"), py::arg("decode"));
    m.def("save_named", &save, py::arg("arena"), py::arg("name"), py::arg("array"),
          py::arg("descr"), py::arg("replace"));
    m.def("describe_named", &describe, py::arg("arena"), py::arg("name"));
    m.def("list_names", &list, py::arg("arena"), py::arg("prefix"), py::arg("after"),
          py::arg("limit"));
    m.def(
        "count_names",
        [](const py_arena& self) { return at_once(self, [](store& s) { return s.count(); }); },
        py::arg("arena"));
    m.def(
        "erase_named",
        [](const py_arena& self, const py::str& name) {
            const std::string key = key_of(name);
            return in_turn(self, [&](store& s) { return s.erase(key); });
        },
        py::arg("arena"), py::arg("name"));
    m.def(
        "rename",
        [](const py_arena& self, const py::str& from, const py::str& to) {
            const std::string old_key = key_of(from);
            const std::string new_key = key_of(to);
            return in_turn(self, [&](store& s) { return s.rename(old_key, new_key); });
        },
        py::arg("arena"), py::arg("old"), py::arg("new"));
    m.def(
        "set_attrs",
        [](const py_arena& self, const py::str& name, const std::string& attrs) {
            const std::string key = key_of(name);
            return in_turn(self, [&](store& s) { return s.set_attrs(key, attrs); });
        },
        py::arg("arena"), py::arg("name"), py::arg("attrs"));
    m.def(
        "begin",
        [](const py_arena& self, std::optional<std::uint64_t> timeout_ms) {
            const std::uint64_t patience = timeout_ms ? *timeout_ms : forever;
            const std::uint64_t deadline = after_ms(patience);
            in_turn(
                self,
                [&](store& s) {
                    const std::uint64_t now = platform::monotonic_milliseconds();
                    return s.begin(deadline > now ? deadline - now : 0);
                },
                patience);
        },
        py::arg("arena"), py::arg("timeout_ms"));
    m.def(
        "commit", [](const py_arena& self) { in_turn(self, [](store& s) { return s.commit(); }); },
        py::arg("arena"));
    m.def(
        "abort",
        [](const py_arena& self) {
            if (const auto held = self.lease_if_alive()) {
                store::of(held->heap()).abort();
            }
        },
        py::arg("arena"));
    m.def(
        "in_transaction",
        [](const py_arena& self) {
            const auto held = self.lease_if_alive();
            return held && store::of(held->heap()).in_transaction();
        },
        py::arg("arena"));
    m.def(
        "flush",
        [](const py_arena& self) {
            const auto held = self.lease();
            value_or_raise(wait_patiently(
                [&] { return held->heap().flush(); },
                [](const auto& tried) { return !tried && tried.err().code == errc::lock_timeout; },
                forever));
        },
        py::arg("arena"));
    m.def(
        "refresh",
        [](const py_arena& self) { at_once(self, [](store& s) { return s.refresh(); }); },
        py::arg("arena"));
    m.def(
        "check_names",
        [](const py_arena& self) {
            const auto held = self.lease();
            const py::gil_scoped_release released;
            return store::of(held->heap()).check();
        },
        py::arg("arena"));
}

}  // namespace ndarena::module
