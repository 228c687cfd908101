"""DICOM files as images, through pydicom (extra `dicom`)."""
