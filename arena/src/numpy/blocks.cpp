// Arrays over blocks that several owners hold: publishing an array's memory,
// and arrays over what was published.
//
// A block capsule holds one reference of this process to a block. It is the
// base of the arrays over the block, and what a reference object keeps.
#include "numpy/target.hpp"

#include <vector>

namespace ndarena::numpy {
namespace {

constexpr const char* block_name = "ndarena.block";

struct held_block {
    std::shared_ptr<lease> held;
    void* address;
    // Instead of a reference to the block, where this process can have none.
    std::shared_ptr<const void> pin;
};

held_block* block_of(PyObject* capsule) noexcept {
    if (capsule == nullptr || PyCapsule_IsValid(capsule, block_name) == 0) {
        return nullptr;
    }
    return static_cast<held_block*>(PyCapsule_GetPointer(capsule, block_name));
}

// Possibly with an exception pending, possibly while the interpreter exits.
void destroy_block(PyObject* capsule) noexcept {
    PyObject* type = nullptr;
    PyObject* value = nullptr;
    PyObject* traceback = nullptr;
    PyErr_Fetch(&type, &value, &traceback);
    if (held_block* block = block_of(capsule)) {
        if (block->pin) {
            block->pin.reset();  // before the heap that it is about
        } else {
            (void)block->held->heap().deallocate(block->address);
        }
        delete block;
    }
    PyErr_Restore(type, value, traceback);
}

// Two threads may publish one array at a time.
platform::mutex publishing;

// What an array or a part of one is a view of; a new reference, null at the end.
// Memoryviews and the helpers of `as_strided` stand between two arrays.
PyObject* viewed_by(PyObject* object) noexcept {
    PyObject* base = nullptr;
    if (PyArray_Check(object) != 0) {
        base = PyArray_BASE(reinterpret_cast<PyArrayObject*>(object));
    } else if (PyMemoryView_Check(object) != 0) {
        base = PyMemoryView_GET_BASE(object);
    } else if (PyCapsule_CheckExact(object) == 0 &&
               PyObject_HasAttrString(object, "__array_interface__") != 0) {
        base = PyObject_GetAttrString(object, "base");
        if (base == nullptr) {
            PyErr_Clear();
        }
        return base;
    }
    Py_XINCREF(base);
    return base;
}

// The array at the end of the chain of views; a new reference.
PyArrayObject* root_of(PyObject* array) noexcept {
    static constexpr int longest = 64;
    Py_INCREF(array);
    PyObject* root = array;
    Py_INCREF(array);
    PyObject* at = array;
    for (int depth = 0; at != nullptr && depth < longest; ++depth) {
        PyObject* base = viewed_by(at);
        Py_DECREF(at);
        at = base;
        if (at != nullptr && PyArray_Check(at) != 0) {
            Py_INCREF(at);
            Py_DECREF(root);
            root = at;
        }
    }
    Py_XDECREF(at);
    return reinterpret_cast<PyArrayObject*>(root);
}

// Whether all elements of the view lie in [first, first + size).
bool lies_within(const char* data, int ndim, const npy_intp* shape, const npy_intp* strides,
                 npy_intp itemsize, const char* first, std::uint64_t size) noexcept {
    npy_intp low = data - first;
    npy_intp high = low + itemsize;
    for (int i = 0; i < ndim; ++i) {
        if (shape[i] < 0) {
            return false;
        }
        if (shape[i] == 0) {
            return true;  // no element anywhere
        }
        npy_intp extent = 0;
        npy_intp& end = strides[i] < 0 ? low : high;
        if (__builtin_mul_overflow(shape[i] - 1, strides[i], &extent) ||
            __builtin_add_overflow(end, extent, &end)) {
            return false;
        }
    }
    return low >= 0 && static_cast<std::uint64_t>(high) <= size;
}

bool lies_in_block(PyArrayObject* a, const void* first, std::uint64_t size) noexcept {
    return lies_within(PyArray_BYTES(a), PyArray_NDIM(a), PyArray_DIMS(a), PyArray_STRIDES(a),
                       PyArray_ITEMSIZE(a), static_cast<const char*>(first), size);
}

// The block of an array that owns its data, or has been published; else None.
PyObject* publish_root(PyArrayObject* root, bool for_sending) {
    platform::lock_guard guard(publishing);
    if (PyObject* base = PyArray_BASE(root); base != nullptr) {
        if (block_of(base) == nullptr) {
            Py_RETURN_NONE;  // somebody else's memory
        }
        Py_INCREF(base);
        return base;
    }
    void* data = PyArray_DATA(root);
    auto held = lease::find(data);
    heap::block_id id;
    std::uint64_t nbytes = 0;
    if (!held || PyArray_CHKFLAGS(root, NPY_ARRAY_OWNDATA) == 0 ||
        (for_sending && !held->heap().can_send()) || !held->heap().identify(data, id, nbytes)) {
        Py_RETURN_NONE;
    }
    // The reference that the array was born with is the capsule's from here on:
    // NumPy must neither free the memory, nor resize it, nor write a result
    // into it because it looks like a temporary's.
    PyObject* capsule = new_block(std::move(held), data);
    if (capsule == nullptr) {
        return nullptr;
    }
    auto* fields = reinterpret_cast<PyArrayObject_fields*>(root);
    PyObject* handler = fields->mem_handler;
    fields->mem_handler = nullptr;
    PyArray_CLEARFLAGS(root, NPY_ARRAY_OWNDATA);
    fields->base = capsule;
    Py_INCREF(capsule);
    Py_XDECREF(handler);
    return capsule;
}

}  // namespace

PyObject* new_block(std::shared_ptr<lease> held, void* address, std::shared_ptr<const void> pin) {
    auto block = std::make_unique<held_block>(held_block{std::move(held), address, std::move(pin)});
    PyObject* capsule = PyCapsule_New(block.get(), block_name, &destroy_block);
    if (capsule == nullptr) {
        return nullptr;
    }
    (void)block.release();
    return capsule;
}

std::shared_ptr<lease> lease_of_block(PyObject* capsule, void*& address) noexcept {
    const held_block* block = block_of(capsule);
    if (block == nullptr) {
        return nullptr;
    }
    address = block->address;
    return block->held;
}

PyObject* publish(PyObject* array, bool for_sending) {
    PyArrayObject* root = root_of(array);
    PyObject* block = publish_root(root, for_sending);
    Py_DECREF(root);
    void* address = nullptr;
    heap::block_id id;
    std::uint64_t nbytes = 0;
    // What it says that it is a view of need not be where its elements are.
    if (const auto held = block == nullptr ? nullptr : lease_of_block(block, address);
        held &&
        !((!for_sending || held->heap().can_send()) && held->heap().identify(address, id, nbytes) &&
          lies_in_block(reinterpret_cast<PyArrayObject*>(array), address, nbytes))) {
        Py_DECREF(block);
        Py_RETURN_NONE;
    }
    return block;
}

std::int64_t offset_in_block(PyObject* capsule, PyObject* array) noexcept {
    const held_block* block = block_of(capsule);
    return block == nullptr ? 0
                            : static_cast<const char*>(data_of(array)) -
                                  static_cast<const char*>(block->address);
}

PyObject* whole_array(PyObject* capsule, PyObject* dtype, const std::vector<std::int64_t>& shape,
                      bool fortran, std::uint64_t nbytes, bool writeable) {
    const held_block* block = block_of(capsule);
    PyArray_Descr* descr = nullptr;
    if (PyArray_DescrConverter(dtype, &descr) == NPY_FAIL) {
        return nullptr;
    }
    npy_intp size = PyDataType_ELSIZE(descr);
    bool fits = shape.size() <= NPY_MAXDIMS && !PyDataType_REFCHK(descr);
    for (const std::int64_t n : shape) {
        fits = fits && n >= 0 && !__builtin_mul_overflow(size, n, &size);
    }
    if (!fits || static_cast<std::uint64_t>(size) != nbytes || (block == nullptr && nbytes != 0)) {
        Py_DECREF(descr);
        PyErr_SetString(PyExc_ValueError, "type and shape do not describe the stored bytes");
        return nullptr;
    }
    std::vector<npy_intp> dimensions(shape.begin(), shape.end());
    int flags = fortran ? NPY_ARRAY_F_CONTIGUOUS : 0;
    if (writeable && block != nullptr) {
        flags |= NPY_ARRAY_WRITEABLE;
    }
    PyObject* array = PyArray_NewFromDescr(
        &PyArray_Type, descr, static_cast<int>(shape.size()), dimensions.data(), nullptr,
        block == nullptr ? nullptr : block->address, flags, nullptr);
    auto* a = reinterpret_cast<PyArrayObject*>(array);
    if (array != nullptr && !writeable) {
        PyArray_CLEARFLAGS(a, NPY_ARRAY_WRITEABLE);
    }
    if (array == nullptr || block == nullptr) {
        return array;
    }
    PyArray_UpdateFlags(a, NPY_ARRAY_UPDATE_ALL);
    Py_INCREF(capsule);
    if (PyArray_SetBaseObject(a, capsule) != 0) {
        Py_DECREF(array);
        return nullptr;
    }
    return array;
}

array_layout layout_of(PyObject* array) {
    auto* a = reinterpret_cast<PyArrayObject*>(array);
    array_layout layout;
    layout.data = PyArray_DATA(a);
    layout.nbytes = static_cast<std::uint64_t>(PyArray_NBYTES(a));
    layout.shape.assign(PyArray_DIMS(a), PyArray_DIMS(a) + PyArray_NDIM(a));
    const bool c_order = PyArray_CHKFLAGS(a, NPY_ARRAY_C_CONTIGUOUS) != 0;
    layout.fortran = !c_order && PyArray_CHKFLAGS(a, NPY_ARRAY_F_CONTIGUOUS) != 0;
    layout.contiguous = c_order || layout.fortran;
    return layout;
}

PyObject* array_over(PyObject* capsule, PyObject* dtype, const std::vector<std::int64_t>& shape,
                     const std::vector<std::int64_t>& strides, std::int64_t offset,
                     bool writeable) {
    const held_block* block = block_of(capsule);
    heap::block_id id;
    std::uint64_t nbytes = 0;
    if (block == nullptr || !block->held->heap().identify(block->address, id, nbytes)) {
        PyErr_SetString(PyExc_ValueError, "not a block of a live arena");
        return nullptr;
    }
    PyArray_Descr* descr = nullptr;
    if (PyArray_DescrConverter(dtype, &descr) == NPY_FAIL) {
        return nullptr;
    }
    char* first = static_cast<char*>(block->address);
    const bool fits = shape.size() <= NPY_MAXDIMS && shape.size() == strides.size() &&
                      offset >= 0 && static_cast<std::uint64_t>(offset) <= nbytes &&
                      !PyDataType_REFCHK(descr) &&
                      lies_within(first + offset, static_cast<int>(shape.size()), shape.data(),
                                  strides.data(), PyDataType_ELSIZE(descr), first, nbytes);
    if (!fits) {
        Py_DECREF(descr);
        PyErr_SetString(PyExc_ValueError, "the array does not lie in its block");
        return nullptr;
    }
    std::vector<npy_intp> dimensions(shape.begin(), shape.end());
    std::vector<npy_intp> steps(strides.begin(), strides.end());
    PyObject* array = PyArray_NewFromDescr(&PyArray_Type, descr, static_cast<int>(shape.size()),
                                           dimensions.data(), steps.data(), first + offset,
                                           writeable ? NPY_ARRAY_WRITEABLE : 0, nullptr);
    if (array == nullptr) {
        return nullptr;
    }
    auto* a = reinterpret_cast<PyArrayObject*>(array);
    PyArray_UpdateFlags(a, NPY_ARRAY_UPDATE_ALL);
    Py_INCREF(capsule);
    if (PyArray_SetBaseObject(a, capsule) != 0) {
        Py_DECREF(array);
        return nullptr;
    }
    return array;
}

}  // namespace ndarena::numpy
